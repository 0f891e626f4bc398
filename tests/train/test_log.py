"""What training tells logging: each event with its numbers, if somebody listens."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hrm_runtime.log import log as runtime_log
from hrm_train import load_checkpoint, train
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split
from hrm_train.errors import TrainingDiverged, TrainingStopped
from hrm_train.learning.epochs import Progress
from hrm_train.learning.events import Events
from hrm_train.learning.state import Position
from hrm_train.learning.trainer import train_folds
from hrm_train.log import LOGGER, log
from hrm_train.settings import Settings

Fields = dict[str, Any]


@pytest.fixture
def told() -> Iterator[list[Fields]]:
    """The fields of every record from INFO on."""
    found: list[Fields] = []

    class Host(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.name == "hrm_train"
            found.append({"level": record.levelname, **vars(record)["hrm"]})

    handler, before = Host(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield found
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(before)


@pytest.fixture
def two_epochs(make_settings: Any) -> Settings:
    settings: Settings = make_settings({"training.epochs": 2})
    return settings


def test_a_training_tells_its_start_each_epoch_and_its_end(
    two_epochs: Settings, tensors: Path, split: Split, tmp_path: Path, told: list[Fields]
) -> None:
    progress: list[Progress] = []
    description = train(two_epochs, tensors, tmp_path / "out", progress.append).description
    out, steps = str(tmp_path / "out"), [one.step for one in progress]
    ends = [one.step for one, after in pairwise(progress)
            if len(after.epochs) > len(one.epochs)]  # fmt: skip
    best = [min(description.epochs[:done], key=lambda one: one.validation_loss) for done in (1, 2)]
    assert told == [
        {
            "level": "INFO", "event": "training began", "out": out, "step": 0, "epochs_done": 0,
            "epochs": 2, "train_samples": len(split.train),
            "validation_samples": len(split.validation), "device": "cpu", "processes": 1,
            "initialized_from": None, "quantised": False,
        },
        *(
            {"level": "INFO", "event": "epoch", "out": out, "step": ends[done],
             "best_epoch": best[done].number, **asdict(description.epochs[done])}
            for done in (0, 1)
        ),
        {
            "level": "INFO", "event": "training done", "out": out, "step": steps[-1],
            "best_epoch": description.best_epoch,
        },
    ]  # fmt: skip


def test_a_training_tells_that_it_was_stopped_and_from_where_it_goes_on(
    two_epochs: Settings, tensors: Path, tmp_path: Path, told: list[Fields]
) -> None:
    asked = iter(range(100))
    with pytest.raises(TrainingStopped):
        train(two_epochs, tensors, tmp_path / "out", stop=lambda: next(asked) == 3)
    assert told[-1] == {
        "level": "INFO", "event": "training stopped", "out": str(tmp_path / "out"), "step": 3,
        "epochs_done": 0,
    }  # fmt: skip
    assert [one["event"] for one in told] == ["training began", "training stopped"]
    told.clear()
    train(two_epochs, tensors, tmp_path / "out", resume=True)
    assert [one["event"] for one in told] == ["training resumed", "epoch", "epoch", "training done"]
    assert (told[0]["step"], told[0]["epochs_done"]) == (3, 0)


def test_a_training_tells_what_made_it_fail(
    two_epochs: Settings, prepared: Prepared, split: Split, tmp_path: Path, told: list[Fields]
) -> None:
    lots = prepared.sample_lots.copy()
    lots[split.validation[-1]] = np.inf
    replace(prepared, sample_lots=lots).save(tmp_path / "bars.safetensors")
    with pytest.raises(TrainingDiverged) as caught:
        train(two_epochs, tmp_path / "bars.safetensors", tmp_path / "out")
    assert [one["event"] for one in told] == ["training began", "training failed"]
    assert told[-1] == {
        "level": "ERROR", "event": "training failed", "out": str(tmp_path / "out"),
        "kind": "TrainingDiverged", "why": str(caught.value),
    }  # fmt: skip


def test_folds_and_what_goes_on_from_a_checkpoint_are_told_apart(
    make_settings: Any, tensors: Path, trained: Path, tmp_path: Path, told: list[Fields]
) -> None:
    changes = {"training.validation_fraction": 0.5, "training.epochs": 1}
    train_folds(make_settings(changes), tensors, tmp_path, 2)
    events = ["training began", "epoch", "training done"]
    assert [(one["event"], one["out"]) for one in told] == [
        (event, str(tmp_path / f"fold-{fold}")) for fold in (1, 2) for event in events
    ]
    told.clear()
    train(make_settings(), tensors, tmp_path / "next", init_from=trained)
    assert told[0]["initialized_from"] == load_checkpoint(trained).sha256


def test_where_training_may_be_resumed_is_told_to_who_debugs(
    make_settings: Any, tensors: Path, tmp_path: Path, told: list[Fields]
) -> None:
    LOGGER.setLevel(logging.DEBUG)
    progress: list[Progress] = []
    settings = make_settings({"training.epochs": 1, "training.save_minutes": 0.0})
    train(settings, tensors, tmp_path / "out", progress.append)
    saved = [(one["level"], one["step"]) for one in told if one["event"] == "saved"]
    assert saved == [("DEBUG", one.step) for one in progress]


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_of_several_processes_tells(first: bool, told: list[Fields]) -> None:
    fabric = SimpleNamespace(is_global_zero=first)
    writer = SimpleNamespace(folder=Path("out"))
    saver: Any = SimpleNamespace(run=SimpleNamespace(fabric=fabric), writer=writer)
    Events(saver).stopped(Position(step=3, epochs=(), loss_sum=1.0, loss_steps=3))
    assert told == first * [
        {"level": "INFO", "event": "training stopped", "out": "out", "step": 3, "epochs_done": 0}
    ]


def test_nothing_is_printed_unless_somebody_listens() -> None:
    program = """
import logging
from hrm_train.log import log
log(logging.ERROR, "training failed", why="loss")
logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
log(logging.ERROR, "training failed", why="loss")
log(logging.INFO, "epoch", number=1)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    expected = 'ERROR hrm_train: training failed why="loss"\n'
    assert (done.stdout, done.stderr) == ("", expected)


def test_the_runtime_s_logger_is_another(told: list[Fields]) -> None:
    runtime_log(logging.CRITICAL, "killed")
    log(logging.INFO, "epoch", number=1)
    assert told == [{"level": "INFO", "event": "epoch", "number": 1}]
