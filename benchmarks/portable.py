"""Artifacts of random small networks, exported on one processor and loaded on another.

    python benchmarks/portable.py write FOLDER [--networks 50]
    python benchmarks/portable.py load FOLDER                  # there
    python benchmarks/portable.py load FOLDER --cpu Haswell    # or here, emulated by qemu

Nobody trained them: sizes, weights and halting heads are drawn; fp32, fp16 and int8 in turn, with
one to three segments. Where parity refuses one, another is drawn. `load` needs the production
install; it exits with 1 if one is refused.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from numpy.random import Generator, default_rng

from hrm_runtime import DoNotStart, load

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("fp32", "fp16", "int8")


def write(folder: Path, networks: int) -> None:
    """Export `networks` artifacts into `folder`."""
    sys.path.insert(0, str(ROOT / "tests/support"))
    from synthetic import random_bars

    from hrm_export import export
    from hrm_export.errors import ParityFailed
    from hrm_runtime.market.csv_files import write_csv

    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        bars = Path(temporary) / "bars"
        bars.mkdir()
        write_csv(random_bars(700, seed=1), bars / "Alpha_5.csv")
        write_csv(random_bars(700, seed=2), bars / "Beta_5.csv")
        numbers, written = count(), 0
        while written < networks:
            number = next(numbers)
            rng = default_rng(number)
            checkpoint = Path(temporary) / f"checkpoint-{number}"
            draw(rng, bars, checkpoint, segments=1 + number // 3 % 3)
            precision = PRECISIONS[number % 3]
            calibration = bars if precision == "int8" else ()
            name = f"{number:02d}-{precision}"
            try:
                export(checkpoint, folder / name, precision=precision, calibration=calibration)
            except ParityFailed:  # some that nobody trained are too restless, as export says
                print(f"{name} is refused", flush=True)
            else:
                written += 1
                print(f"wrote {written} of {networks}", flush=True)


def draw(rng: Generator, bars: Path, folder: Path, segments: int) -> None:
    """Write the checkpoint of a network that was drawn, not trained."""
    import torch
    from synthetic import SMALL

    from hrm_train import prepare
    from hrm_train.data.split import chronological_split
    from hrm_train.learning.checkpoint import CheckpointWriter, Description, Epoch
    from hrm_train.learning.plan import held_out, initial_model
    from hrm_train.settings import parse_settings

    network = dict(SMALL["hierarchical_reasoning_model"])
    for module in ("h_module", "l_module"):
        heads, width = int(rng.integers(1, 4)), 2 * int(rng.integers(2, 6))
        network[module] = {
            "hidden_dim": heads * width, "num_layers": int(rng.integers(1, 3)),
            "num_heads": heads, "ffn_dim": int(rng.integers(8, 40)),
        }  # fmt: skip
    loops = {"N_cycles": int(rng.integers(1, 4)), "T_timesteps": int(rng.integers(1, 5))}
    network["hierarchical"] = loops
    training = {**SMALL["training"], "max_segments": segments, "seed": int(rng.integers(2**31))}
    settings = parse_settings({"hierarchical_reasoning_model": network, "training": training})
    prepared = prepare(settings, [bars])
    split = chronological_split(prepared, 0.4, settings.training.label_horizon)
    model = initial_model(settings, prepared, split).eval()
    torch.manual_seed(settings.training.seed)
    torch.nn.init.normal_(model.q_head.logits.weight, std=0.3)
    torch.nn.init.normal_(model.q_head.logits.bias, std=0.1)
    writer, manifest = CheckpointWriter(folder), prepared.manifest
    writer.begin(settings, held_out(settings, prepared, split))
    epoch = Epoch(
        number=1, train_loss=0.0, validation_loss=0.0, accuracy=0.0, regret=0.0, segments=1.0
    )
    writer.describe(
        Description(
            format_version=1, digest="", feature_version=manifest.feature_version,
            features=manifest.features, account=manifest.account, vocabulary=manifest.vocabulary,
            series=manifest.series, train_samples=len(split.train),
            validation_samples=len(split.validation), boundary=split.boundary,
            judged_from=split.boundary, judged_until=None, initialized_from=None, quantised=False,
            best_epoch=1, epochs=(epoch,), files={},
        ),
        model,
    )  # fmt: skip


def load_all(folder: Path) -> bool:
    """Whether every artifact loads; those that do not are told."""
    found = sorted(folder.iterdir())
    refused = 0
    for artifact in found:
        try:
            load(artifact)
        except DoNotStart as error:
            refused += 1
            print(f"{artifact.name}: {error}")
    print(f"{len(found) - refused} of {len(found)} loaded")
    return not refused


def emulated(folder: Path, cpu: str) -> int:
    """The exit code of `load` under an emulated processor."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        sys.exit("expected qemu-x86_64 (package qemu-user), found none")
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    program = [os.path.realpath(sys.executable), __file__, "load", str(folder)]
    return subprocess.run(
        [qemu, "-cpu", cpu, *program], env={**os.environ, "PYTHONPATH": path}, check=False
    ).returncode


def main() -> None:
    """Write or load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("write", "load"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--cpu", help="to emulate, of those that qemu knows")
    asked = parser.parse_args()
    if asked.what == "write":
        write(asked.folder, asked.networks)
    elif asked.cpu:
        sys.exit(emulated(asked.folder, asked.cpu))
    else:
        sys.exit(not load_all(asked.folder))


if __name__ == "__main__":
    main()
