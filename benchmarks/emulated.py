"""Decide on another CPU: the same artifact, natively and under an emulated processor.

    python benchmarks/emulated.py ARTIFACT --data FILE.csv [--data FILE.csv] [--cpu Haswell]

Decides 200 windows of the bars in this process and again under `qemu-x86_64 -cpu Haswell`, which
has AVX2 but no VNNI, and compares every decision and every bit of every output. On either, runs
`--rows` rows alone, in one batch and shuffled, and compares every bit too. Needs qemu-user and the
production install; a pass of the base preset takes 3.5 s there. Exits with 1 where a decision
differs, or natively a row.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import astuple
from pathlib import Path

import numpy as np

import hrm_runtime
from hrm_runtime import Account, Model, load
from hrm_runtime.artifact.contract import INPUTS, OUTPUTS
from hrm_runtime.artifact.model import network_inputs
from hrm_runtime.artifact.segments import decisions
from hrm_runtime.market.csv_files import read_csv
from hrm_runtime.market.features import rows
from hrm_runtime.measure.turns import end_with_parent, lifeline

OURS = str(Path(hrm_runtime.__file__).parents[1])
"""Where this package lies; an editable install is not on the path."""

WINDOWS = 200


def accounts(close: float) -> list[Account]:
    """Flat, long and short."""
    return [
        Account.flat(1e6),
        Account(1e6, 3.0, close * 0.998, close * 0.006, True, 0.004),
        Account(5e5, -2.0, close * 0.997, -close * 0.006, True, -0.004),
    ]


def windows(model: Model, files: list[Path]) -> dict[str, np.ndarray]:
    """The network's inputs for windows spread over the bars, and their accounts."""
    contract, inputs, held = model.contract, [], []
    series = [(*file.stem.rsplit("_", 1), read_csv(file)) for file in files]
    for number in range(WINDOWS):
        instrument, timeframe, bars = series[number % len(series)]
        ends = np.linspace(contract.bars_needed, len(bars), WINDOWS, dtype=np.int64)
        window = bars[ends[number] - contract.bars_needed : ends[number]]
        account = accounts(float(window.close[-1]))[number % 3]
        made = rows(window, contract.features.history_bars)
        facts = contract.instrument(instrument), contract.timeframe_id(timeframe)
        inputs.append(network_inputs(contract, made, account, *facts))
        held.append(astuple(account))
    arrays = (np.concatenate(arrays) for arrays in zip(*inputs, strict=True))
    return {**dict(zip(INPUTS, arrays, strict=True)), "accounts": np.array(held, dtype=np.float64)}


def measure(model: Model, given: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The decision of each window, decided alone, the outputs of its last pass, and which outputs
    of `count` windows, repeated to make so many, depend on the batch.
    """
    made, last = [], []
    for row, account in enumerate(given["accounts"].tolist()):
        passes = model.run_segments(*(given[name][[row]] for name in INPUTS))
        made += decisions(passes, [Account(*account)], model.id)
        last.append(passes[-1])
    batch = [np.resize(given[name], (count, *given[name].shape[1:])) for name in INPUTS]
    return {
        "decisions": np.array([[d.action, d.segments, d.quantity] for d in made]),
        "batch": dependent(model, batch),
        **{name: np.concatenate([outputs[name] for outputs in last]) for name in OUTPUTS},
    }


def dependent(model: Model, batch: list[np.ndarray]) -> np.ndarray:
    """The outputs of which a row's bits depend on the rows beside it."""
    count = len(batch[0])
    order = np.random.default_rng(0).permutation(count)
    together = model.run(*batch)
    shuffled = model.run(*(array[order] for array in batch))
    alone = [model.run(*(array[[row]] for array in batch)) for row in range(count)]
    return np.array(
        [
            name
            for name, output in together.items()
            if not np.array_equal(output[order], shuffled[name])
            or not np.array_equal(output, np.concatenate([one[name] for one in alone]))
        ],
        dtype=np.str_,
    )


def emulated(
    artifact: Path, given: dict[str, np.ndarray], cpu: str, count: int
) -> dict[str, np.ndarray]:
    """`measure` under an emulated CPU, after loading the artifact there, with its self-test."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        sys.exit("expected qemu-x86_64 (package qemu-user), found none")
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, **given)
        program = [os.path.realpath(sys.executable), __file__, str(artifact), "--rows", str(count)]
        with lifeline() as stdin:
            subprocess.run(
                [qemu, "-cpu", cpu, *program, "--emulated", str(inputs), str(outputs)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([OURS, *filter(None, sys.path)])},
                stdin=stdin,
                check=True,
            )
        with np.load(outputs) as found:
            return dict(found)


def main() -> None:
    """Compare, print, and exit with 1 where something differs that must not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[], help="bars as CSV")
    parser.add_argument("--cpu", default="Haswell", help="of those that qemu knows")
    parser.add_argument("--rows", type=int, default=500, help="held together and apart")
    parser.add_argument("--emulated", type=Path, nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.emulated:
        end_with_parent()
    model = load(asked.artifact)
    if asked.emulated:
        inputs, outputs = asked.emulated
        with np.load(inputs) as given:
            np.savez(outputs, **measure(model, dict(given), asked.rows))
        return
    given = windows(model, asked.data)
    here = measure(model, given, asked.rows)
    there = emulated(asked.artifact, given, asked.cpu, asked.rows)
    equal = (here["decisions"] == there["decisions"]).all(axis=1)
    print(f"decisions equal on {asked.cpu}: {equal.sum()} of {len(equal)}")
    differing = ", ".join(n for n in OUTPUTS if not np.array_equal(here[n], there[n])) or "none"
    print(f"outputs that are not bit-equal on {asked.cpu}: {differing}")
    for where, found in (("here", here), (asked.cpu, there)):
        names = ", ".join(found["batch"].tolist()) or "none"
        print(f"outputs that depend on the batch, {where}, {asked.rows} rows: {names}")
    sys.exit(not equal.all() or len(here["batch"]) > 0)


if __name__ == "__main__":
    main()
