"""What is given to the wrong verb is named, and so are the verbs that take it."""

import os
from pathlib import Path
from typing import Any

import pytest
from synthetic import SMALL, random_bars
from typer.testing import CliRunner

from hrm_cli import given
from hrm_cli.app import app
from hrm_cli.given import Kind, kinds
from hrm_runtime.journal import file as journal
from hrm_runtime.market.csv_files import write_csv
from hrm_train.data import prepared
from hrm_train.data.preparation import prepare_series
from hrm_train.learning import checkpoint
from hrm_train.settings import parse_settings, write_preset

ARTIFACT = Path(__file__).parents[2] / "models" / "base" / "artifact"


def test_names_known_without_torch_are_those_of_the_libraries() -> None:
    assert (given.CHECKPOINT, given.STATE) == (checkpoint.MANIFEST, checkpoint.LAST)
    assert checkpoint.fold_name(1) == given.FOLD
    assert prepared.TENSORS_SUFFIX == given.TENSORS_SUFFIX
    assert journal.SUFFIX == given.JOURNAL_SUFFIX
    assert given.TAKEN_BY.keys() == set(Kind)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One thing of each kind; folders of a training hold names alone."""
    folder = tmp_path_factory.mktemp("things")
    for name in (
        "checkpoint/checkpoint.json", "checkpoint/last.safetensors", "checkpoint/settings.yaml",
        "begun/last.safetensors", "begun/settings.yaml", "walk/fold-1/checkpoint.json",
        "journal/20240101T000000-000001.sqlite", "empty/nothing", "unknown.txt", "odd.safetensors",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "long.safetensors").write_bytes(b"\xff" * 9)
    (folder / "list.safetensors").write_bytes(b"\x02" + bytes(7) + b"[]")
    write_preset(folder, "tiny")
    (folder / "artifact").symlink_to(ARTIFACT)
    (folder / "bars").mkdir()
    write_csv(random_bars(400), folder / "bars" / "Alpha_5.csv")
    prepare_series(parse_settings(SMALL), {("Alpha", "5"): random_bars(400)}).save(
        folder / "bars.safetensors"
    )
    return folder


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("artifact", [Kind.ARTIFACT]),
        ("artifact/model.onnx", [Kind.PART]),
        ("checkpoint", [Kind.CHECKPOINT]),
        ("checkpoint/checkpoint.json", [Kind.PART]),
        ("checkpoint/last.safetensors", [Kind.WEIGHTS]),
        ("begun", [Kind.UNFINISHED]),
        ("walk", [Kind.FOLDS]),
        ("settings.yaml", [Kind.SETTINGS]),
        ("bars", [Kind.BARS]),
        ("bars/Alpha_5.csv", [Kind.BARS]),
        ("bars.safetensors", [Kind.TENSORS]),
        ("odd.safetensors", [Kind.WEIGHTS]),
        ("long.safetensors", [Kind.WEIGHTS]),
        ("list.safetensors", [Kind.WEIGHTS]),
        ("journal", [Kind.JOURNAL]),
        ("journal/20240101T000000-000001.sqlite", [Kind.JOURNAL]),
        ("empty", []),
        ("unknown.txt", []),
        ("nowhere", []),
    ],
)
def test_things_are_known_by_their_names(path: str, found: list[Kind], place: Path) -> None:
    assert kinds(place / path) == found


def test_what_may_not_be_looked_at_is_not_known(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    assert kinds(place / "artifact") == []


MAKES = "for hrm export, which makes an artifact, evaluate and train --init-from"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export artifact --out new", "artifact: expected a checkpoint, found an artifact: for"),
        ("export walk --out new", "walk: expected a checkpoint, found a folder of folds: for"),
        ("export begun --out new", "expected a checkpoint, found training before the end of its"),
        ("export settings.yaml --out new", "found a settings file: for hrm prepare and train"),
        ("export checkpoint --out new --calibration artifact", "expected bars, found an artifact"),
        ("inspect checkpoint", f"checkpoint: expected an artifact, found a checkpoint: {MAKES}"),
        ("inspect walk", "expected an artifact, found a folder of folds"),
        ("inspect artifact/model.onnx", "found a file of an artifact or a checkpoint: give"),
        ("bench settings.yaml", "expected an artifact, found a settings file"),
        ("bench journal", "expected an artifact, found a journal: for hrm replay"),
        ("predict checkpoint --data bars/Alpha_5.csv --instrument A --timeframe 5",
         f"expected an artifact, found a checkpoint: {MAKES}"),
        ("predict artifact --data checkpoint --instrument A --timeframe 5",
         "checkpoint: expected bars, found a checkpoint"),
        ("backtest bars --data bars", "expected an artifact, found bars: for --data and --cal"),
        ("backtest artifact --data bars.safetensors", "expected bars, found prepared tensors: for"),
        ("trace checkpoint --data bars/Alpha_5.csv --picture new.png", "expected an artifact, fou"),
        ("replay artifact --artifact artifact", "expected a journal, found an artifact"),
        ("replay journal --artifact checkpoint", "expected an artifact, found a checkpoint"),
        ("parity checkpoint --checkpoint artifact --data bars", "expected a checkpoint, found an"),
        ("demo --artifact checkpoint", "expected an artifact, found a checkpoint"),
        ("train bars/Alpha_5.csv --data bars --out new", "expected a settings file, found bars"),
        ("train bars.safetensors --data bars --out new", "a settings file, found prepared tensors"),
        ("train checkpoint --data bars --out new", "expected a settings file, found a checkpoint"),
        ("train settings.yaml --data artifact --out new",
         "expected bars or prepared tensors, found an artifact"),
        ("train settings.yaml --data bars --out new --init-from artifact",
         "expected a checkpoint or a folder of folds, found an artifact"),
        ("prepare settings.yaml --data bars.safetensors --out new.safetensors",
         "expected bars, found prepared tensors: for --data of hrm train and evaluate"),
        ("evaluate artifact --data bars", "expected a checkpoint or a folder of folds, found an"),
        ("evaluate checkpoint --data settings.yaml",
         "expected bars or prepared tensors, found a settings file"),
    ],
)  # fmt: skip
def test_what_another_verb_takes_is_refused_by_name(
    arguments: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    result: Any = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 2
    assert result.stderr.startswith("hrm: ")
    assert message in result.stderr
    assert sorted(place.rglob("*")) == before
