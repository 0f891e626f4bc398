"""What a run keeps: which epoch is the best, and which file it goes on from."""

from pathlib import Path

import pytest

from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.saving import best_of, state_file


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
