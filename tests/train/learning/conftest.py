"""Tensors to train on, and what a run and a walk forward leave, trained once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import REPORTS, SHORT

from hrm_train import load_checkpoint, train
from hrm_train.learning import trainer
from hrm_train.learning.act import Order
from hrm_train.learning.epochs import Progress
from hrm_train.learning.trainer import train_folds
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def short(make_settings: MakeSettings) -> Settings:
    return make_settings(SHORT)


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    """What the run that was not stopped told."""
    return []


@pytest.fixture(scope="module")
def unstopped(
    short: Settings,
    tensors: Path,
    told: list[Progress],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run that was not stopped."""
    folder = tmp_path_factory.mktemp("unstopped") / "checkpoint"
    train(short, tensors, folder, told.append)
    assert len(told) >= REPORTS
    return folder


@pytest.fixture(scope="module")
def folding(make_settings: MakeSettings) -> Settings:
    return make_settings(
        {
            "training.validation_fraction": 0.5,
            "training.batch_size": 150,
            "training.save_minutes": 0.0,
            "training.epochs": 2,
        }
    )


class Recorded(Order):
    """Keeps the samples that are trained on."""

    made: list[Any] = []  # noqa: RUF012, emptied by the fixture

    def __init__(self, samples: Any, *arguments: Any) -> None:
        Recorded.made.append(samples)
        super().__init__(samples, *arguments)


@pytest.fixture(scope="module")
def folds(
    folding: Settings, tensors: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Any], list[Progress]]:
    """The folder of two folds, the samples each was trained on, and what was told."""
    folder, told = tmp_path_factory.mktemp("folds"), list[Progress]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorded, "made", [])
        patch.setattr(trainer, "Order", Recorded)
        trained = train_folds(folding, tensors, folder, 2, told.append)
        samples = Recorded.made
    assert [one.sha256 for one in trained] == [
        load_checkpoint(folder / f"fold-{number}").sha256 for number in (1, 2)
    ]
    return folder, samples, told
