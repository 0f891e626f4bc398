"""`hrm evaluate` shows the library's judgement."""

import json
import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
from command import BAD_INPUT, DONE, asked_once, hrm

from hrm_runtime import BadInput
from hrm_train.judging import baselines, evaluation


def test_evaluate_prints_the_librarys_judgement_and_shows_the_network_above_its_baselines(
    checkpoint_folder: Path, bars_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint_folder, tmp_path / "fold-1")
    judge = asked_once(evaluation.evaluate)
    monkeypatch.setattr(evaluation, "evaluate", judge)
    for kind in ("Classifier", "Regressor"):  # of which a hundred trees take seconds
        name = f"HistGradientBoosting{kind}"
        monkeypatch.setattr(baselines, name, partial(getattr(baselines, name), max_iter=2))
    said = hrm("evaluate", tmp_path, "--data", bars_folder, "--json")
    assert said.exit_code == DONE, said.output
    expected = asdict(judge())
    assert json.loads(said.stdout) == json.loads(json.dumps(expected, allow_nan=False))
    assert "judging" in said.stderr
    result = hrm("evaluate", tmp_path, "--data", bars_folder)
    assert result.exit_code == DONE, result.output
    names = [line.split("│")[1].strip() for line in result.stdout.splitlines() if line[0] == "│"]
    assert [name for name in names if name] == ["network", "majority", "logistic", "trees"]
    assert "Fold 1" in result.stdout
    assert "The epoch was chosen on the training data" in result.stdout


@pytest.mark.parametrize(("options", "device"), [((), "auto"), (("--device", "cpu"), "cpu")])
def test_what_evaluate_is_given_reaches_the_library(
    options: tuple[str, ...], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def judge(*arguments: object) -> None:
        asked.extend(arguments)
        raise BadInput("not now")

    monkeypatch.setattr(evaluation, "evaluate", judge)
    result = hrm("evaluate", "folds", "--data", "a", "--data", "b.csv", *options)
    assert result.exit_code == BAD_INPUT
    assert "hrm: not now" in result.stderr
    folder, data, _, where = asked
    assert (folder, data, where) == (Path("folds"), [Path("a"), Path("b.csv")], device)


def test_evaluate_of_what_is_no_checkpoint_exits_with_2(tmp_path: Path, bars_folder: Path) -> None:
    result = hrm("evaluate", tmp_path, "--data", bars_folder, "--json")
    assert result.exit_code == BAD_INPUT
    assert result.stdout == ""
    assert "expected a checkpoint folder" in result.stderr


def test_a_missing_scikit_learn_is_named_with_the_line_that_installs_it(
    checkpoint_folder: Path, bars_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sklearn", "sklearn.base"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("baselines", "judgement", "evaluation"):
        monkeypatch.delitem(sys.modules, f"hrm_train.judging.{name}")
    monkeypatch.delitem(sys.modules, "hrm_cli.show.judgement")
    result = hrm("evaluate", checkpoint_folder, "--data", bars_folder)
    assert result.exit_code == BAD_INPUT
    assert "evaluate needs sklearn: pip install '.[train]'" in result.stderr
