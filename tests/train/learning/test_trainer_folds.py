"""A walk forward: what each fold knows, and is judged on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal
from folders import content
from training_runs import Stopped, stopping

from hrm_train import load_checkpoint
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import feature_statistics, judged_samples, walk_forward
from hrm_train.errors import CheckpointInvalid, DataInvalid, SettingsInvalid
from hrm_train.learning.epochs import Progress
from hrm_train.learning.trainer import train_folds
from hrm_train.settings import Settings

HORIZON = 6


@pytest.mark.parametrize("number", [1, 2])
def test_a_fold_never_trains_on_what_is_known_only_when_it_is_judged(
    number: int, folds: tuple[Path, list[Any], list[Progress]], prepared: Prepared
) -> None:
    folder, samples, _ = folds
    fold = walk_forward(prepared, 2, 0.5, HORIZON)[number - 1]
    checkpoint = load_checkpoint(folder / f"fold-{number}")
    description = checkpoint.description
    assert (description.judged_from, description.judged_until) == (fold.start, fold.end)
    assert description.boundary == fold.split.boundary < description.judged_from
    trained = samples[number - 1]
    assert trained.tolist() == fold.split.train.tolist()
    assert prepared.sample_end[trained].max() < description.boundary
    assert checkpoint.windows.stamps.max() < description.judged_from
    judged = judged_samples(prepared, fold.start, fold.end, HORIZON)
    assert not np.isin(judged, [*trained, *fold.split.validation]).any()
    assert prepared.sample_stamp[judged].min() > prepared.sample_end[trained].max()
    found = (description.train_samples, description.validation_samples)
    assert found == (len(fold.split.train), len(fold.split.validation))
    known = feature_statistics(prepared, fold.split)
    assert_equal(checkpoint.model.input_network.features.mean, torch.from_numpy(known.mean))


def test_progress_says_which_fold_is_trained(
    folds: tuple[Path, list[Any], list[Progress]],
) -> None:
    _, samples, told = folds
    assert {(one.fold, one.folds, one.of) for one in told} == {
        (1, 2, 2 * len(samples[0])),
        (2, 2, 2 * len(samples[1])),
    }
    assert [one.fold for one in told] == sorted(one.fold for one in told)
    assert [next(one.step for one in told if one.fold == fold) for fold in (1, 2)] == [1, 1]


@pytest.mark.parametrize("share", [0.25, 0.75], ids=["in the first fold", "in the second"])
def test_folds_are_resumed_where_they_were_stopped(
    share: float,
    folds: tuple[Path, list[Any], list[Progress]],
    folding: Settings,
    tensors: Path,
    tmp_path: Path,
) -> None:
    folder, _, told = folds
    after = int(share * len(told))
    with pytest.raises(Stopped):
        train_folds(folding, tensors, tmp_path, 2, stopping(after))
    again: list[Progress] = []
    train_folds(folding, tensors, tmp_path, 2, again.append, resume=True)
    for name in ("fold-1", "fold-2"):
        assert content(tmp_path / name) == content(folder / name)
    assert {one.fold for one in again} == ({1, 2} if told[after - 1].fold == 1 else {2})


def test_a_fold_is_not_resumed_as_one_of_another_number_of_folds(
    folds: tuple[Path, list[Any], list[Progress]], folding: Settings, tensors: Path
) -> None:
    message = r"fold-1/last\.safetensors: .* differs in boundary: now \d+, saved \d+; judged_from"
    with pytest.raises(CheckpointInvalid, match=message):
        train_folds(folding, tensors, folds[0], 1, resume=True)


def test_folds_that_cannot_be_trained_leave_nothing_written(
    folding: Settings, tensors: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataInvalid, match="fold 1 of 30: expected samples to train on"):
        train_folds(folding, tensors, tmp_path / "out", 30)
    assert not (tmp_path / "out").exists()
    (tmp_path / "fold-2").mkdir()
    (tmp_path / "fold-2" / "mine").write_text("precious")
    with pytest.raises(CheckpointInvalid, match="fold-2: expected a new or empty folder, found m"):
        train_folds(folding, tmp_path / "absent.csv", tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["fold-2"]


def test_folds_go_on_from_those_of_an_earlier_walk_with_quantisers(
    folds: tuple[Path, list[Any], list[Progress]],
    folding: Settings,
    tensors: Path,
    tmp_path: Path,
) -> None:
    walk, _, _ = folds
    quantised = train_folds(folding, tensors, tmp_path / "q", 2, init_from=walk, quantise=True)
    for number, one in enumerate(quantised, start=1):
        source = load_checkpoint(walk / f"fold-{number}")
        assert one.model.quantised
        assert not source.model.quantised
        known, found = source.description, one.description
        assert found.initialized_from == source.sha256
        assert (found.boundary, found.judged_from, found.judged_until) == (
            known.boundary, known.judged_from, known.judged_until,
        )  # fmt: skip
        assert (found.train_samples, found.validation_samples) == (
            known.train_samples, known.validation_samples,
        )  # fmt: skip
        mean = one.model.input_network.features.mean
        assert_equal(mean, source.model.input_network.features.mean)
    # quantised sources stay so, and what they know may not change
    again = train_folds(folding, tensors, tmp_path / "r", 2, init_from=tmp_path / "q")
    assert all(one.model.quantised for one in again)
    message = r"fold-1: expected a fold that knows and is judged on the same parts of time, \(\d+, "
    with pytest.raises(CheckpointInvalid, match=message):
        train_folds(folding, tensors, tmp_path / "s", 3, init_from=walk)
    with pytest.raises(SettingsInvalid, match="quantise: expected a checkpoint to go on from"):
        train_folds(folding, tensors, tmp_path / "s", 2, quantise=True)
    assert not (tmp_path / "s").exists()
