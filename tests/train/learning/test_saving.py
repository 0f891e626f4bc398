"""What a run keeps: which epoch is the best, and which file it goes on from."""

import pickle
from pathlib import Path

import pytest
import torch
from training_runs import stopped

from hrm_train import load_checkpoint, train
from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.saving import best_of, state_file
from hrm_train.settings import Settings


@pytest.mark.parametrize(
    ("losses", "best"), [([3.0, 1.0, 2.0], 2), ([1.0, 1.0], 1), ([2.0, 1.0, 1.0], 2), ([4.0], 1)]
)
def test_the_best_epoch_is_the_first_of_lowest_validation_loss(
    losses: list[float], best: int
) -> None:
    epochs = tuple(
        Epoch(
            number=number, train_loss=0.0, validation_loss=loss, accuracy=0.5, regret=0.5,
            segments=1.0,
        )
        for number, loss in enumerate(losses, start=1)
    )  # fmt: skip
    assert best_of(epochs).number == best


def test_a_run_goes_on_from_its_state_and_not_from_a_checkpoint_without_one(
    checkpoint: Path, tmp_path: Path
) -> None:
    assert state_file(checkpoint) == checkpoint / "last.safetensors"
    (checkpoint / "last.safetensors").unlink()
    with pytest.raises(
        CheckpointInvalid, match=r"last\.safetensors: .* found a checkpoint without"
    ):
        state_file(checkpoint)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "settings.yaml").touch()
    assert state_file(tmp_path / "begun") is None


def test_nothing_is_pickled(
    short: Settings, tensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a run that is stopped and resumed, nor where its checkpoint is loaded."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("expected no pickle")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("save", "load"):
        monkeypatch.setattr(torch, name, refuse)
    stopped(short, tensors, tmp_path / "out", after=3)
    made = train(short, tensors, tmp_path / "out", resume=True)
    assert load_checkpoint(tmp_path / "out").sha256 == made.sha256
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {
        *(".json", ".safetensors", ".yaml"),
    }
