"""Exports in other precisions, and the bars that quantisers and golden vectors are given."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from synthetic import random_bars

from hrm_export import check_parity, export
from hrm_export.errors import ExportRefused
from hrm_export.exporter import MOST_WINDOWS
from hrm_export.proof.gates import FLOAT_TOLERANCES, INT8_TOLERANCES
from hrm_export.proof.inputs import bars_windows, window_inputs
from hrm_runtime import Account, BadBars, load, read_csv
from hrm_runtime.artifact.contract import Precision
from hrm_runtime.artifact.golden import WITH_BARS, Golden
from hrm_runtime.market.csv_files import write_csv
from hrm_train.errors import DataInvalid
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.scales import calibrate

pytestmark = pytest.mark.usefixtures("quick_export")


def refused(kind: type[Exception], message: str, checkpoint: Path, out: Path, **named: Any) -> None:
    """An export that fails, and leaves what was there."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(kind, match=message):
        export(checkpoint, out, **named)
    assert sorted(out.parent.iterdir()) == before


# precisions


def constants(folder: Path) -> dict[str, np.ndarray]:
    graph = onnx.load(folder / "model.onnx").graph
    return {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}


def test_halves_are_written_and_proven(
    checkpoint_folder: Path, artifact_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    done = export(checkpoint_folder, tmp_path / "half", precision="fp16")
    contract = done.contract
    assert (contract.graph.precision, contract.graph.input_scales) == ("fp16", {})
    assert contract.tolerances == FLOAT_TOLERANCES
    assert [(s.stage, s.reference, s.gated, s.passed) for s in contract.parity[:-1]] == [
        ("composed", "torch eager", True, True),
        ("fused", "torch eager", True, True),
        ("artifact", "torch eager, float16 weights", True, True),
        ("artifact, hard windows", "torch eager, float16 weights", True, True),
    ]
    assert (contract.parity[-1].reference, contract.parity[-1].gated) == ("torch eager", False)
    kinds = {v.dtype.name for v in constants(done.path).values() if v.ndim == 2 and v.size > 64}
    assert kinds == {"float16"}
    assert done.changes[-1].count == 24
    assert check_parity(done.path, checkpoint_folder, [bars_folder], 64).passed
    bars = read_csv(bars_folder / "Alpha_5.csv")
    ours, theirs = (
        load(folder).decide(bars, Account.flat(1e6), instrument="Alpha", timeframe="5")
        for folder in (done.path, artifact_folder)
    )
    assert ours.value == pytest.approx(theirs.value, abs=0.01)
    assert ours.value != theirs.value


def test_integers_trained_with_quantisers_are_written_and_proven(
    quantised_folder: Path, quantised: Checkpoint, bars_folder: Path, tmp_path: Path
) -> None:
    done = export(quantised_folder, tmp_path / "int8", precision="int8")
    contract = done.contract
    assert contract.graph.precision == "int8"
    scales = {name: float(scale) for name, scale in quantised.model.scales.items()}
    assert contract.graph.input_scales == scales
    assert len(scales) == 10
    assert contract.tolerances == INT8_TOLERANCES
    assert [(s.stage, s.reference, s.gated, s.passed) for s in contract.parity] == [
        ("composed", "torch eager", True, True),
        ("fused", "torch eager", True, True),
        ("artifact", "torch eager, quantised", True, True),
        ("artifact, hard windows", "torch eager, quantised", True, True),
        ("artifact", "torch eager", True, True),
    ]
    found = constants(done.path)
    for name, scale in scales.items():
        assert found[f"{name}.input_scale"] == np.float32(scale)
    assert sum(value.dtype == np.int8 for value in found.values()) == 16
    assert check_parity(done.path, quantised_folder, [bars_folder], 64).passed


def test_integers_may_be_calibrated_on_bars(
    checkpoint_folder: Path, checkpoint: Checkpoint, bars_folder: Path, tmp_path: Path
) -> None:
    done = export(checkpoint_folder, tmp_path / "int8", precision="int8", calibration=[bars_folder])
    windows, _ = bars_windows(checkpoint, [bars_folder], MOST_WINDOWS)
    expected = calibrate(checkpoint.model, *window_inputs(done.contract, windows).arrays)
    assert done.contract.graph.input_scales == pytest.approx(expected, rel=1e-6)
    last = done.contract.parity[-1]
    assert (last.stage, last.reference, last.gated) == ("artifact", "torch eager", False)
    assert check_parity(done.path, checkpoint_folder, [bars_folder], 64).passed


def test_calibration_is_of_the_cycles_and_timesteps_that_are_deployed(
    checkpoint_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    one, other = (
        export(
            checkpoint_folder,
            tmp_path / f"{cycles}",
            precision="int8",
            calibration=[bars_folder / "Alpha_5.csv"],
            cycles=cycles,
        ).contract.graph
        for cycles in (2, 5)
    )
    assert (one.cycles, other.cycles) == (2, 5)
    assert one.input_scales != other.input_scales


def test_a_quantised_checkpoint_may_be_deployed_without_quantisers(
    quantised_folder: Path, quantised: Checkpoint, bars_folder: Path, tmp_path: Path
) -> None:
    done = export(quantised_folder, tmp_path / "fp32")
    assert (done.contract.graph.precision, done.contract.graph.input_scales) == ("fp32", {})
    weight = constants(done.path)["l_module.from_h.weight"]
    np.testing.assert_array_equal(weight.T, quantised.model.l_module.from_h.weight.detach())
    assert check_parity(done.path, quantised_folder, [bars_folder], 64).passed


def test_integers_without_quantisers_are_refused_and_told_what_to_do(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    refused(
        ExportRefused,
        "^int8: expected a checkpoint trained with quantisers, found one without; train on with "
        "--quantise --init-from, or give bars with --calibration$",
        checkpoint_folder,
        tmp_path / "artifact",
        precision="int8",
    )


@pytest.mark.parametrize(
    ("precision", "trained", "message"),
    [
        ("fp32", False, "this is fp32, and the checkpoint has none"),
        ("fp16", False, "this is fp16, and the checkpoint has none"),
        ("fp32", True, "this is fp32, and the checkpoint has them"),
        ("int8", True, "this is int8, and the checkpoint has them"),
    ],
)
def test_bars_that_would_calibrate_nothing_are_refused(
    precision: Precision,
    trained: bool,
    message: str,
    checkpoint_folder: Path,
    quantised_folder: Path,
    bars_folder: Path,
    tmp_path: Path,
) -> None:
    refused(
        ExportRefused,
        f"^calibration: expected for int8 of a checkpoint without quantisers only; {message}$",
        quantised_folder if trained else checkpoint_folder,
        tmp_path / "artifact",
        precision=precision,
        calibration=[bars_folder],
    )


@pytest.mark.parametrize(
    ("name", "count", "kind", "message"),
    [
        ("absent.csv", 0, BadBars, r"absent\.csv"),
        ("Alpha_5.csv", 211, DataInvalid, "can be done with, found none: Alpha_5: 211 bars, 212"),
        ("Alpha_5.csv", 220, DataInvalid, "at least 32 windows to calibrate quantisers on, found"),
        (
            "Alpha_15.csv",
            300,
            DataInvalid,
            "Alpha_15: bars: expected bars of 900 s, found .* 300 s after",
        ),
    ],
)
@pytest.mark.parametrize("option", ["calibration", "golden"])
def test_bars_that_cannot_be_used_are_refused(
    option: str,
    name: str,
    count: int,
    kind: type[Exception],
    message: str,
    checkpoint_folder: Path,
    tmp_path: Path,
) -> None:
    file = tmp_path / "bars" / name
    file.parent.mkdir()
    if count:
        write_csv(random_bars(count, seed=4), file)
    if option == "golden":
        message = message.replace(", found", ".* found").replace(
            "at least 32 windows to calibrate quantisers on",
            "golden vectors: expected at least 28 windows",
        )
    precision: Precision = "int8" if option == "calibration" else "fp32"
    (tmp_path / "out").mkdir()
    refused(
        kind,
        message,
        checkpoint_folder,
        tmp_path / "out" / "artifact",
        precision=precision,
        **{option: [file]},
    )


@pytest.mark.parametrize("option", ["calibration", "golden"])
@pytest.mark.parametrize(
    ("name", "seconds", "what"), [("Gamma_5", 300, "instrument"), ("Alpha_60", 3600, "timeframe")]
)
def test_bars_of_names_that_the_artifact_refuses_are_refused(
    option: str, name: str, seconds: int, what: str, checkpoint_folder: Path, tmp_path: Path
) -> None:
    write_csv(random_bars(300, seed=5, seconds=seconds), tmp_path / f"{name}.csv")
    options: dict[str, Any] = {option: [tmp_path / f"{name}.csv"]}
    if option == "calibration":
        options["precision"] = "int8"
    with pytest.raises(DataInvalid, match=f"found none: {name}: {what}: expected one of"):
        export(checkpoint_folder, tmp_path / "artifact", **options)
    assert not (tmp_path / "artifact").exists()


@pytest.mark.parametrize("kind", [str, Path])
def test_bars_may_be_one_path(
    kind: Any, checkpoint_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    data = bars_folder / "Beta_5.csv"
    one = export(checkpoint_folder, tmp_path / "one" / "artifact", golden=kind(data))
    several = export(checkpoint_folder, tmp_path / "several" / "artifact", golden=[data])
    assert one.contract.files == several.contract.files


# golden bars


def test_golden_vectors_come_from_the_bars_that_are_given(
    checkpoint_folder: Path, artifact_folder: Path, tmp_path: Path
) -> None:
    bars = random_bars(300, seed=77)
    write_csv(bars, tmp_path / "Beta_5.csv")
    done = export(checkpoint_folder, tmp_path / "artifact", golden=[tmp_path / "Beta_5.csv"])
    golden = Golden.from_bytes((done.path / "golden.npz").read_bytes())
    assert set(golden.instrument[:-4].tolist()) == {done.contract.instruments["Beta"].id}
    assert golden.bars.shape == (WITH_BARS, 5, 205)
    for window in golden.bars:
        start = np.flatnonzero(bars.datetime == window[0, 0]).item()
        np.testing.assert_array_equal(window[4], bars.close[start : start + 205])
    load(done.path)
    assert done.contract.parity[1].windows == 512  # parity is still on the held-out windows
    usual = Golden.from_bytes((artifact_folder / "golden.npz").read_bytes())
    assert set(usual.instrument.tolist()) == {0, 1, 2}
