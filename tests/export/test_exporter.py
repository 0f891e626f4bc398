"""Export writes a whole artifact or nothing, and the same inputs give the same bytes."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from synthetic import random_bars

from hrm_export import check_parity, export
from hrm_export.errors import ExportRefused, LimitExceeded, ParityFailed, PassFailed
from hrm_export.exporter import MOST_STEPS, MOST_WINDOWS, Exported
from hrm_export.proof.gates import FLOAT_TOLERANCES, INT8_TOLERANCES, QUANTISED
from hrm_export.proof.golden import make_golden
from hrm_export.proof.inputs import bars_windows, window_inputs
from hrm_runtime import Account, BadBars, SelfTestFailed, load, load_contract, read_csv
from hrm_runtime.artifact.contract import Precision
from hrm_runtime.artifact.golden import WITH_BARS, Golden
from hrm_runtime.market.actions import Action
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_runtime.market.csv_files import write_csv
from hrm_train.errors import CheckpointInvalid, DataInvalid
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.scales import calibrate

pytestmark = pytest.mark.usefixtures("quick_export")

FILES = ["contract.json", "golden.npz", "model.onnx"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(kind: type[Exception], message: str, checkpoint: Path, out: Path, **named: Any) -> None:
    """An export that fails, and leaves what was there."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(kind, match=message):
        export(checkpoint, out, **named)
    assert sorted(out.parent.iterdir()) == before


# what is written


def test_an_artifact_is_three_files_that_load(artifact_folder: Path) -> None:
    assert sorted(path.name for path in artifact_folder.iterdir()) == FILES
    model = load(artifact_folder)
    assert load(artifact_folder, sha256=model.id).id == model.id
    assert artifact_folder.stat().st_mode & 0o777 == 0o755


def test_the_contract_says_what_was_trained(artifact_folder: Path, checkpoint: Checkpoint) -> None:
    contract = load_contract(artifact_folder)
    vocabulary = checkpoint.description.vocabulary
    assert contract.instruments == vocabulary.instruments
    assert contract.timeframes == vocabulary.timeframes
    assert contract.features.names == FEATURES
    assert contract.account == ACCOUNT
    assert contract.actions == {action.name: int(action) for action in Action}
    graph = contract.graph
    assert (graph.cycles, graph.timesteps, graph.reset_l) == (2, 2, True)
    assert (graph.tokens, graph.h_dim, graph.l_dim) == (4, 16, 8)
    assert (graph.precision, graph.opset, graph.input_scales) == ("fp32", 23, {})
    assert contract.bars_needed == 205
    assert contract.max_segments == 2
    assert contract.tolerances == FLOAT_TOLERANCES
    assert contract.provenance.checkpoint_sha256 == checkpoint.sha256
    assert contract.provenance.trained_until == checkpoint.description.judged_from
    assert contract.provenance.settings == checkpoint.settings.model_dump(mode="json")
    assert {"hrm", "torch", "onnxruntime"} <= contract.provenance.versions.keys()
    assert [(stage.stage, stage.windows, stage.passed) for stage in contract.parity] == [
        ("composed", 64, True),
        ("artifact", len(checkpoint.windows), True),
        ("artifact, hard windows", 96, True),
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_inputs_give_the_same_bytes(
    precision: Precision,
    checkpoint_folder: Path,
    quantised_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    source = quantised_folder if precision == "int8" else checkpoint_folder
    first: Exported = export(source, tmp_path / "one" / "artifact", precision=precision)
    second = export(source, tmp_path / "two" / "artifact", precision=precision)
    assert first.contract.created == "2023-11-14T22:13:20Z"
    assert first.model_id == second.model_id == load(first.path).id
    assert first.changes == second.changes
    assert content(first.path) == content(second.path)


def test_an_export_says_how_its_graph_was_made(checkpoint_folder: Path, tmp_path: Path) -> None:
    done = export(checkpoint_folder, tmp_path / "artifact")
    named = f"artifact, fp32, 2 x 2, id {done.model_id[:12]}..."
    assert repr(done) == f"Exported({tmp_path / 'artifact'}, {named})"
    assert done.path == tmp_path / "artifact"
    assert done.contract == load_contract(done.path)
    assert [change.name for change in done.changes] == [
        "fold transposes of weights",
        "fold constants and drop what nothing reads",
        "settle the scale of norms",
        "split products instead of their results",
        "fuse rotation and attention",
        "fuse SiLU",
        "fuse the residual",
        "compute once what a cycle does not change",
    ]


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
        ("Alpha_15.csv", 300, DataInvalid, "Alpha_15: expected bars 900 s apart"),
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


# arguments


def test_a_precision_that_is_none_is_refused(checkpoint_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="precision: expected one of fp32, fp16, int8, found"):
        export(checkpoint_folder, tmp_path / "artifact", precision="fp8")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [float("nan"), float("inf"), 0.0, -1.0, 537.0])
def test_a_size_that_is_none_is_refused(
    size: float, checkpoint_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ExportRefused, match="max_megabytes: expected a size above 0 and at most 536"
    ):
        export(checkpoint_folder, tmp_path / "artifact", max_megabytes=size)


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


# N and T


@pytest.mark.parametrize("precision", PRECISIONS)
def test_cycles_and_timesteps_may_be_others_than_those_of_training(
    precision: Precision,
    checkpoint_folder: Path,
    quantised_folder: Path,
    bars_folder: Path,
    tmp_path: Path,
) -> None:
    source = quantised_folder if precision == "int8" else checkpoint_folder
    done = export(source, tmp_path / "artifact", precision=precision, cycles=1, timesteps=4)
    graph = done.contract.graph
    assert (graph.cycles, graph.timesteps) == (1, 4)
    settings = done.contract.provenance.settings["hierarchical_reasoning_model"]
    assert settings["hierarchical"]["N_cycles"] == settings["hierarchical"]["T_timesteps"] == 2
    assert all(stage.passed for stage in done.contract.parity if stage.gated)
    found = load(done.path)
    golden = Golden.from_bytes((done.path / "golden.npz").read_bytes())
    arrays = (golden.features, golden.account, golden.instrument, golden.timeframe)
    assert found.run(*arrays)["l_residual"].shape == (32, 1, 4)
    assert golden.passes[0]["h_residual"].shape == (32, 1)
    report = check_parity(done.path, source, [bars_folder], 64)
    assert report.passed
    assert report.stages[0].growth is not None
    assert [len(row) for row in report.stages[0].growth.z_L] == [4]


@pytest.mark.parametrize("name", ["cycles", "timesteps"])
def test_one_of_them_may_change_alone(name: str, checkpoint_folder: Path, tmp_path: Path) -> None:
    graph = export(checkpoint_folder, tmp_path / "artifact", **{name: 3}).contract.graph  # type: ignore[arg-type]
    assert {"cycles": graph.cycles, "timesteps": graph.timesteps} == {
        "cycles": 2, "timesteps": 2, name: 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cycles", "timesteps"),
    [(0, 2), (2, 0), (-1, 2), (-2, -3), (1000, 2), (501, None), (None, 501), (1, MOST_STEPS + 1)],
)
def test_schedules_out_of_bounds_are_refused(
    cycles: int | None, timesteps: int | None, checkpoint_folder: Path, tmp_path: Path
) -> None:
    shown = f"{2 if cycles is None else cycles} x {2 if timesteps is None else timesteps}"
    refused(
        ExportRefused,
        "^cycles and timesteps: expected 1 or more of each and at most 1000 steps in all, found "
        f"{shown}$",
        checkpoint_folder,
        tmp_path / "artifact",
        cycles=cycles,
        timesteps=timesteps,
    )


@pytest.mark.parametrize(("cycles", "timesteps"), [(500, None), (1000, 1), (1, 1000)])
def test_a_thousand_steps_are_allowed(
    cycles: int,
    timesteps: int | None,
    checkpoint_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(model: HierarchicalReasoningModel, precision: Precision) -> None:
        assert model.cycles * model.timesteps == MOST_STEPS == 1000
        raise KeyboardInterrupt

    monkeypatch.setattr("hrm_export.exporter.stages", stop)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint_folder, tmp_path / "artifact", cycles=cycles, timesteps=timesteps)


# limits and gates


def test_a_graph_that_is_too_large_is_refused_before_it_is_measured(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("window_inputs", "lower_rungs", "upper_rungs"):
        monkeypatch.delattr(f"hrm_export.exporter.{name}")
    refused(
        LimitExceeded,
        r"^the graph has 0\.0 MB, expected at most 0\.04; export it as fp16",
        checkpoint_folder,
        tmp_path / "artifact",
        max_megabytes=0.04,
    )


def test_a_smaller_precision_fits_where_single_does_not(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    done = export(checkpoint_folder, tmp_path / "artifact", precision="fp16", max_megabytes=0.04)
    assert (done.path / "model.onnx").stat().st_size <= 40_000


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_failed_gate_leaves_nothing_behind(
    precision: Precision,
    checkpoint_folder: Path,
    quantised_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FLOAT_TOLERANCES, "z_H_out", 1e-12)
    refused(
        ParityFailed,
        r"^composed differs from .* z_H_out: .* against 1e-12 in \d+ windows",
        quantised_folder if precision == "int8" else checkpoint_folder,
        tmp_path / "artifact",
        precision=precision,
    )


def test_integers_that_turn_a_clear_decision_fail_where_they_were_trained(
    quantised_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = replace(QUANTISED, near_tie=0.0, near_halt=0.0, whole=True)
    monkeypatch.setattr("hrm_export.proof.parity.QUANTISED", strict)
    refused(
        ParityFailed,
        r"^artifact differs from torch eager over 512 windows; .* Outputs beyond tolerance: none\. "
        r"Decisions that differ: [1-9]",
        quantised_folder,
        tmp_path / "artifact",
        precision="int8",
    )


def test_a_pass_that_fails_leaves_nothing_behind(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_export.graph.build.passes.store_half", lambda model: 0)
    refused(
        PassFailed,
        "^storing halves: expected no float32 matrix",
        checkpoint_folder,
        tmp_path / "artifact",
        precision="fp16",
    )


# where it is written


def test_an_existing_output_is_left_alone(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    refused(
        ExportRefused, "expected a new folder, found one", checkpoint_folder, tmp_path / "artifact"
    )
    assert list((tmp_path / "artifact").iterdir()) == []


def test_a_dangling_link_is_something_that_exists(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "artifact").symlink_to(tmp_path / "nowhere")
    refused(
        ExportRefused, "expected a new folder, found one", checkpoint_folder, tmp_path / "artifact"
    )


@pytest.mark.parametrize("below", ["artifact", "a/b/artifact"])
def test_an_output_below_a_file_is_refused_before_any_work(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportRefused, match=r"artifact: expected to write there, found .*file, wh"):
        export(tmp_path / "no checkpoint", tmp_path / "file" / below)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_output_where_nobody_may_write_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def access(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ExportRefused, match="where nothing can be written"):
        export(tmp_path / "no checkpoint", tmp_path / "new" / "artifact")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_after_all_is_refused(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hrm_export.exporter.tempfile.mkdtemp", full)
    refused(
        ExportRefused,
        "artifact: expected to write there: .*No space left on device",
        checkpoint_folder,
        tmp_path / "artifact",
    )


def test_missing_folders_above_the_output_are_made(checkpoint_folder: Path, tmp_path: Path) -> None:
    done = export(checkpoint_folder, tmp_path / "a" / "b" / "artifact")
    assert sorted(path.name for path in done.path.iterdir()) == FILES
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["artifact"]


def test_an_output_that_appears_meanwhile_is_left_alone(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_and_interfere(folder: Path) -> object:
        (tmp_path / "artifact").mkdir()
        (tmp_path / "artifact" / "theirs").write_text("kept")
        return load(folder)

    monkeypatch.setattr("hrm_export.exporter.load", load_and_interfere)
    with pytest.raises(ExportRefused, match="expected to write there"):
        export(checkpoint_folder, tmp_path / "artifact")
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]
    assert (tmp_path / "artifact" / "theirs").read_text() == "kept"


def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    refused(
        CheckpointInvalid,
        "expected a checkpoint folder",
        tmp_path / "absent",
        tmp_path / "artifact",
    )


@pytest.mark.parametrize("where", ["hrm_export.exporter.load", "hrm_export.exporter.make_golden"])
def test_an_interrupted_export_leaves_nothing_behind(
    where: str, checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint_folder, tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_does_not_load_is_not_written(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*arguments: Any) -> Golden:
        made = make_golden(*arguments)
        return replace(made, actions=(made.actions + 1) % 5)

    monkeypatch.setattr("hrm_export.exporter.make_golden", wrong)
    refused(SelfTestFailed, "expected action", checkpoint_folder, tmp_path / "artifact")


@pytest.mark.parametrize("date", ["yesterday", "9" * 25])
def test_a_date_that_is_none_is_refused(
    date: str, checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
    refused(
        ExportRefused,
        rf"SOURCE_DATE_EPOCH: .* found '{date}'",
        checkpoint_folder,
        tmp_path / "artifact",
    )
