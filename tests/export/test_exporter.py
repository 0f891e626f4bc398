"""Export writes a whole artifact or nothing, and the same inputs give the same bytes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import hrm_export.parity
from hrm_export import export
from hrm_export.errors import ExportRefused, ParityFailed
from hrm_export.exporter import Exported
from hrm_export.golden import CLEAR_GAP, make_golden
from hrm_export.parity import top_two_gap, torch_run, window_inputs
from hrm_runtime import Account, Bars, load, load_contract
from hrm_runtime.actions import Action, Side
from hrm_runtime.columns import ACCOUNT, FEATURES
from hrm_runtime.contract import LEAST_WINDOWS
from hrm_runtime.golden import WITH_BARS, Golden
from hrm_runtime.model import decisions, run_segments
from hrm_train.errors import CheckpointInvalid

if TYPE_CHECKING:
    from hrm_train.checkpoint import Checkpoint

FILES = ["contract.json", "golden.npz", "model.onnx"]


@pytest.fixture(scope="module")
def golden(artifact_folder: Path) -> Golden:
    return Golden.from_bytes((artifact_folder / "golden.npz").read_bytes())


def test_an_artifact_is_three_files_that_load(artifact_folder: Path) -> None:
    assert sorted(path.name for path in artifact_folder.iterdir()) == FILES
    model = load(artifact_folder)
    assert load(artifact_folder, sha256=model.id).id == model.id


def test_the_contract_says_what_was_trained(
    artifact_folder: Path, checkpoint: "Checkpoint"
) -> None:
    contract = load_contract(artifact_folder)
    vocabulary = checkpoint.description.vocabulary
    assert contract.instruments == vocabulary.instruments
    assert contract.timeframes == vocabulary.timeframes
    assert contract.features.names == FEATURES
    assert contract.account == ACCOUNT
    assert contract.actions == {action.name: int(action) for action in Action}
    assert (contract.graph.cycles, contract.graph.timesteps) == (2, 2)
    assert (contract.graph.tokens, contract.graph.h_dim, contract.graph.l_dim) == (4, 16, 8)
    assert contract.bars_needed == 205
    assert contract.max_segments == 2
    assert contract.provenance.checkpoint_sha256 == checkpoint.sha256
    assert contract.provenance.trained_until == checkpoint.description.boundary
    assert contract.provenance.settings == checkpoint.settings.model_dump(mode="json")
    assert {"hrm", "torch", "onnxruntime"} <= contract.provenance.versions.keys()
    (stage,) = contract.parity
    assert stage.passed
    assert stage.windows == len(checkpoint.windows)


def test_the_same_inputs_give_the_same_bytes(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first: Exported = export(checkpoint_folder, tmp_path / "one" / "artifact")
    second = export(checkpoint_folder, tmp_path / "two" / "artifact")
    assert first.contract.created == "2023-11-14T22:13:20Z"
    assert first.model_id == second.model_id
    for name in FILES:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name


def test_golden_vectors_cover_all_sides_an_unknown_instrument_and_clear_decisions(
    golden: Golden, checkpoint: "Checkpoint"
) -> None:
    assert len(golden) >= LEAST_WINDOWS
    assert {account.side for account in golden.accounts()} == set(Side)
    assert set(golden.instrument.tolist()) == {0, 1, 2}
    assert set(golden.timeframe.tolist()) == {1, 2}
    made = decisions(golden.passes, golden.accounts(), "")
    assert min(top_two_gap(decision) for decision in made) >= CLEAR_GAP
    unknown = golden.instrument == 0
    sides = np.array([int(account.side) for account in golden.accounts()])
    assert set(sides[unknown]) == set(sides[~unknown]) == set(Side)
    assert [int(decision.action) for decision in made] == golden.actions.tolist()
    assert [decision.segments for decision in made] == golden.segments.tolist()
    assert [decision.quantity for decision in made] == golden.quantities.tolist()


def test_every_side_is_golden_however_many_instruments_there_are(
    checkpoint: "Checkpoint", artifact_folder: Path
) -> None:
    windows = checkpoint.windows
    many = replace(windows, instrument=np.arange(len(windows)) % 8 + 1)
    instruments = {
        f"name {number}": replace(checkpoint.description.vocabulary.instruments["Alpha"], id=number)
        for number in range(1, 9)
    } | {"unknown": checkpoint.description.vocabulary.instruments["unknown"]}
    contract = replace(load_contract(artifact_folder), instruments=instruments)
    inputs = window_inputs(contract, many)
    found = make_golden(replace(checkpoint, windows=many), contract, inputs)
    sides = [int(account.side) for account in found.accounts()][: LEAST_WINDOWS - 4]
    assert np.unique(sides, return_counts=True)[1].tolist() == [10, 9, 9]
    assert set(found.instrument.tolist()) == set(range(9))


def test_golden_outputs_are_what_torch_computes(golden: Golden, checkpoint: "Checkpoint") -> None:
    arrays = (golden.features, golden.account, golden.instrument, golden.timeframe)
    expected = run_segments(torch_run(checkpoint.model), *arrays, 2)
    for stored, computed in zip(golden.passes, expected, strict=True):
        for name, value in computed.items():
            assert np.array_equal(stored[name], value), name


def test_golden_bars_lead_to_the_golden_decisions(artifact_folder: Path, golden: Golden) -> None:
    model = load(artifact_folder)
    names = {entry.id: name for name, entry in model.contract.instruments.items()}
    frames = {entry.id: name for name, entry in model.contract.timeframes.items()}
    for window in range(WITH_BARS):
        stamps, *prices = golden.bars[window]
        decision = model.decide(
            Bars(stamps, *prices),
            Account(*golden.raw_account[window].tolist()),
            instrument=names[int(golden.instrument[window])],
            timeframe=frames[int(golden.timeframe[window])],
        )
        assert int(decision.action) == golden.actions[window]


def test_too_few_held_out_windows_are_refused(
    checkpoint: "Checkpoint", artifact_folder: Path
) -> None:
    few = replace(checkpoint, windows=checkpoint.windows[np.arange(10)])
    contract = load_contract(artifact_folder)
    inputs = window_inputs(contract, few.windows)
    with pytest.raises(CheckpointInvalid, match="expected at least 28 held-out windows, found 10"):
        make_golden(few, contract, inputs)


def test_inputs_of_windows_are_what_decide_computes(
    artifact_folder: Path, checkpoint: "Checkpoint"
) -> None:
    model = load(artifact_folder)
    held_out = checkpoint.windows[np.arange(3)]
    inputs = window_inputs(model.contract, held_out)
    found = decisions(model.run_segments(*inputs.arrays), inputs.accounts, model.id)
    names = {entry.id: name for name, entry in model.contract.instruments.items()}
    frames = {entry.id: name for name, entry in model.contract.timeframes.items()}
    for index in range(3):
        assert found[index] == model.decide(
            held_out.bars(index),
            held_out.account(index),
            instrument=names[int(held_out.instrument[index])],
            timeframe=frames[int(held_out.timeframe[index])],
        )


def test_an_existing_output_is_left_alone(checkpoint_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    with pytest.raises(ExportRefused, match="expected a new folder, found one"):
        export(checkpoint_folder, tmp_path / "artifact")
    assert list((tmp_path / "artifact").iterdir()) == []


@pytest.mark.usefixtures("ready_graph")
def test_an_output_that_cannot_be_written_is_refused(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportRefused, match="expected to write there"):
        export(checkpoint_folder, tmp_path / "file" / "artifact")


@pytest.mark.usefixtures("ready_graph")
def test_a_folder_that_appears_meanwhile_is_not_overwritten(
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


@pytest.mark.usefixtures("ready_graph")
def test_a_failed_gate_leaves_nothing_behind(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hrm_export.parity.TOLERANCES, "z_H_out", 1e-12)
    with pytest.raises(ParityFailed, match=r"z_H_out: .* against 1e-12"):
        export(checkpoint_folder, tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ready_graph")
def test_an_interrupted_export_leaves_nothing_behind(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hrm_export.exporter.load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint_folder, tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ready_graph")
@pytest.mark.parametrize("date", ["yesterday", "9" * 25])
def test_a_date_that_is_none_is_refused(
    date: str, checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
    with pytest.raises(ExportRefused, match=rf"SOURCE_DATE_EPOCH: .* found '{date}'"):
        export(checkpoint_folder, tmp_path / "artifact")
