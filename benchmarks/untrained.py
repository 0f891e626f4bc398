"""An artifact of full size that nobody trained, to measure what serving one costs.

    python benchmarks/untrained.py base-int8 [--preset base] [--precision int8]
                                  [--timesteps T] [--segments 1]
    python benchmarks/footprint.py base-int8
    hrm bench base-int8 --peers

It decides for instruments of any name. Random weights answer differently wherever float32 rounds
differently, so its golden vectors are its own answers, not torch's, and of the parity ladder it has
the rungs below its precision only.
"""

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
import torch

from hrm_export.exporter import contract_of, write_files
from hrm_export.graph.build import stages
from hrm_export.proof.golden import make_golden
from hrm_export.proof.inputs import window_inputs
from hrm_export.proof.parity import lower_rungs, require
from hrm_runtime.artifact.contract import Precision
from hrm_runtime.artifact.folder import load
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.session import Session
from hrm_train.data.preparation import prepare_series
from hrm_train.data.windows import spread, windows
from hrm_train.learning.checkpoint import Checkpoint, Description
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.scales import calibrate
from hrm_train.settings import PRESETS, parse_settings, preset

ROOT: Final = Path(__file__).resolve().parent.parent
BARS: Final = 1200
WINDOWS: Final = 64


def untrained(name: str, timesteps: int | None, segments: int | None) -> Checkpoint:
    """A checkpoint that no training wrote: random weights, windows of random bars."""
    sys.path.insert(0, str(ROOT / "tests/support"))
    from synthetic import random_bars

    document = preset(name).model_dump(mode="json")
    network = document["hierarchical_reasoning_model"]
    network["embeddings"]["allow_unknown_instruments"] = True
    network["hierarchical"]["T_timesteps"] = timesteps or network["hierarchical"]["T_timesteps"]
    document["training"]["max_segments"] = segments or document["training"]["max_segments"]
    settings = parse_settings(document)
    prepared = prepare_series(settings, {("Alpha", "5"): random_bars(BARS)})
    chosen = spread(prepared, np.arange(len(prepared)), WINDOWS, 0)
    torch.manual_seed(0)
    manifest = prepared.manifest
    description = Description(
        format_version=1, digest="", feature_version=manifest.feature_version,
        features=manifest.features, account=manifest.account, vocabulary=manifest.vocabulary,
        series=manifest.series, train_samples=0, validation_samples=0, boundary=0, judged_from=0,
        judged_until=None, initialized_from=None, quantised=False, best_epoch=1, epochs=(),
        files={},
    )  # fmt: skip
    return Checkpoint(
        HierarchicalReasoningModel(settings).eval(),
        settings,
        description,
        windows(prepared, chosen, settings.network.input.bars_needed),
        hashlib.sha256(b"untrained").hexdigest(),
    )


def write(source: Checkpoint, precision: Precision, out: Path) -> None:
    """Write the artifact and load it once."""
    model = source.model
    contract = contract_of(source, model, "fp32", out.name)
    inputs = window_inputs(contract, source.windows)
    if precision == "int8":
        model.quantise(calibrate(model, *inputs.arrays))
    contract = contract_of(source, model, precision, out.name)
    graphs = {built.stage: built.to_bytes() for built in stages(model, precision)}
    _, graph = graphs.popitem()
    parity = lower_rungs(model, contract, graphs, inputs)
    require(parity)
    served = Model(contract, "", Session(graph)).run
    golden = make_golden(served, served, contract, source.windows, inputs)
    out.mkdir(parents=True)
    write_files(out, replace(contract, parity=parity), graph, golden)
    print(f"wrote {out}, id {load(out).id}")


def main() -> None:
    """Make and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8")
    parser.add_argument("--timesteps", type=int, help="low steps a cycle; as the preset has else")
    parser.add_argument("--segments", type=int, help="at most; as the preset has else")
    asked = parser.parse_args()
    write(untrained(asked.preset, asked.timesteps, asked.segments), asked.precision, asked.out)


if __name__ == "__main__":
    main()
