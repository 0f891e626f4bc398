"""Export writes a whole artifact or nothing, and the same inputs give the same bytes."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import content

from hrm_export import check_parity, export
from hrm_export.errors import ExportRefused, LimitExceeded, ParityFailed, PassFailed
from hrm_export.exporter import MOST_STEPS, Exported
from hrm_export.graph.build import stages
from hrm_export.proof.gates import FLOAT_TOLERANCES, QUANTISED
from hrm_export.proof.golden import make_golden
from hrm_runtime import SelfTestFailed, load, load_contract
from hrm_runtime.artifact.contract import Precision
from hrm_runtime.artifact.golden import Golden
from hrm_runtime.market.actions import Action
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.model import HierarchicalReasoningModel

pytestmark = pytest.mark.usefixtures("quick_export")

FILES = ["contract.json", "golden.npz", "model.onnx"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


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


@pytest.mark.usefixtures("quick_export")  # that torch converts alike is tested with the graphs
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
    monkeypatch.setattr("hrm_export.exporter.stages", stages)  # now, not as they are remembered
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
