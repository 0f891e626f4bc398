"""How long a graph takes to make, by depth: conversion, passes, composition and writing.

    python benchmarks/export_time.py [--preset base] [--precision int8]

Without calibration and gates. Random weights; the time does not depend on them. Each depth in a
process of its own, which has imported what it needs before the clock starts.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import torch

from hrm_export.graph.build import stages
from hrm_export.graph.limits import MEGABYTE, require_limits
from hrm_runtime.artifact.contract import Precision
from hrm_runtime.measure.turns import end_with_parent, lifeline
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import PRESETS, preset

DEPTHS = ((3, 5), (3, 50), (10, 10))
"""N and T."""

SCALE = 0.03
"""Of every quantised input."""


def measure(name: str, precision: Precision, cycles: int, timesteps: int) -> None:
    """Make one graph and print what it took."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = HierarchicalReasoningModel(preset(name)).eval()
    model.cycles, model.timesteps = cycles, timesteps
    if precision == "int8":
        model.quantise(dict.fromkeys(model.products, SCALE))
    start = time.perf_counter()
    *_, built = stages(model, precision)
    content = built.to_bytes()
    require_limits(content)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.onnx").write_bytes(content)
    print(
        f"{cycles:2} x {timesteps:2}: {time.perf_counter() - start:5.1f} s, "
        f"{built.model.graph.num_nodes():6,} nodes, {len(content) / MEGABYTE:.1f} MB",
        flush=True,
    )


def main() -> None:
    """Measure each depth in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument("--depth", type=int, nargs=2, help="N and T, here and now")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.apart:
        end_with_parent()
    if asked.depth:
        measure(asked.preset, asked.precision, *asked.depth)
        return
    for depth in DEPTHS:
        command = [sys.executable, *sys.argv, "--apart", "--depth", *map(str, depth)]
        with lifeline() as stdin:
            subprocess.run(command, stdin=stdin, check=True)


if __name__ == "__main__":
    main()
