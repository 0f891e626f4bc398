"""What the network gets: windows as serving makes them, and windows at the edge of what happens."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import random_bars

from hrm_export.proof.inputs import (
    HARD_WINDOWS,
    Inputs,
    bars_windows,
    hard,
    unseen_windows,
    window_inputs,
)
from hrm_runtime import BadBars, load
from hrm_runtime.artifact.segments import decisions
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.instruments import name_of
from hrm_train.errors import DataInvalid
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.settings import parse_settings


def test_inputs_of_windows_are_what_decide_computes(
    artifact_folder: Path, checkpoint: Checkpoint
) -> None:
    model = load(artifact_folder)
    held_out = checkpoint.windows[np.arange(3)]
    inputs = window_inputs(model.contract, held_out)
    found = decisions(model.run_segments(*inputs.arrays), inputs.accounts, model.id)
    for index in range(3):
        assert found[index] == model.decide(
            held_out.bars(index),
            held_out.account(index),
            instrument=name_of(model.contract.instruments, int(held_out.instrument[index])),
            timeframe=name_of(model.contract.timeframes, int(held_out.timeframe[index])),
        )


def test_a_part_of_the_inputs_is_that_of_each(inputs: Inputs) -> None:
    part = inputs.slice(3, 7)
    assert len(part) == 4
    assert part.accounts == inputs.accounts[3:7]
    for found, whole in zip(part.arrays, inputs.arrays, strict=True):
        np.testing.assert_array_equal(found, whole[3:7], strict=True)


def test_bars_give_windows_over_everything_they_have(
    checkpoint: Checkpoint, bars_folder: Path
) -> None:
    found, skipped = bars_windows(checkpoint, [bars_folder], 90)
    assert skipped == ()
    assert len(found) == 90
    kinds = (found.instrument, found.timeframe, np.sign(found.accounts[:, 1]).astype(np.int64))
    _, counts = np.unique(np.stack(kinds), axis=1, return_counts=True)
    assert counts.tolist() == [10] * 9  # three series, three sides
    assert found.stamps.shape == (90, 205)
    assert (np.diff(found.stamps, axis=1) > 0).all()
    again, _ = bars_windows(checkpoint, [bars_folder], 90)
    for name, array in vars(found).items():
        np.testing.assert_array_equal(getattr(again, name), array, err_msg=name)


def test_what_training_has_not_seen_comes_first(checkpoint: Checkpoint, bars_folder: Path) -> None:
    about = checkpoint.description
    found, unseen, _ = unseen_windows(checkpoint, [bars_folder], 60)
    assert (len(found), unseen) == (60, 60)
    assert (found.stamps[:, -1] >= about.boundary).all()
    everything, unseen, skipped = unseen_windows(checkpoint, [bars_folder], 10**6)
    assert skipped == ()
    later = everything.stamps[:, -1] >= about.boundary
    assert about.validation_samples <= unseen == later.sum() < len(everything)
    assert later[:unseen].all()
    assert len(everything) > about.train_samples + about.validation_samples  # and the embargo


def test_bars_of_other_names_are_those_of_unknown_ones_where_that_is_allowed(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    write_csv(random_bars(300, seed=5), tmp_path / "Gamma_5.csv")
    for read in (bars_windows, unseen_windows):
        with pytest.raises(DataInvalid, match="Gamma_5: instrument: expected one of Alpha, Beta; "):
            read(checkpoint, [tmp_path], 12)
    document = checkpoint.settings.model_dump(mode="json")
    network = document["hierarchical_reasoning_model"]
    network["embeddings"]["allow_unknown_instruments"] = True
    open_to_all = replace(checkpoint, settings=parse_settings(document))
    found, _ = bars_windows(open_to_all, [tmp_path], 12)
    assert found.instrument.tolist() == [0] * 12
    known = checkpoint.description.vocabulary.timeframes["5"].id
    assert found.timeframe.tolist() == [known] * 12


@pytest.mark.parametrize("read", [bars_windows, unseen_windows])
def test_series_that_give_no_windows_are_named_and_change_nothing(
    read: Callable[..., tuple[Any, ...]], checkpoint: Checkpoint, bars_folder: Path, tmp_path: Path
) -> None:
    write_csv(random_bars(300, seed=5), tmp_path / "Gamma_5.csv")
    write_csv(random_bars(50, seed=6, seconds=900), tmp_path / "Alpha_15.csv")
    plain, found = (read(checkpoint, data, 60) for data in ([bars_folder], [bars_folder, tmp_path]))
    for name, array in vars(found[0]).items():
        np.testing.assert_array_equal(array, getattr(plain[0], name), err_msg=name)
    assert found[1:-1] == plain[1:-1]
    alpha, gamma = map(str, found[-1])
    assert alpha.startswith("Alpha_15: 50 bars, ")
    assert gamma.startswith("Gamma_5: instrument: expected one of Alpha, Beta; found 'Gamma'")


@pytest.mark.parametrize("read", [bars_windows, unseen_windows])
def test_bars_that_are_not_there_are_refused(
    read: Callable[[Checkpoint, list[Path], int], object], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(BadBars, match="expected CSV or Parquet files in this folder, found none"):
        read(checkpoint, [tmp_path], 10)


# windows at the edge


@pytest.fixture
def edge(inputs: Inputs) -> Inputs:
    return hard(inputs)


KINDS = (
    "huge features", "large features", "no features", "huge accounts", "mirrored", "unknown",
)  # fmt: skip


def kind(edge: Inputs, name: str) -> Inputs:
    at = KINDS.index(name) * HARD_WINDOWS
    return edge.slice(at, at + HARD_WINDOWS)


def test_hard_windows_are_finite_and_of_the_types_served(edge: Inputs, inputs: Inputs) -> None:
    assert len(edge) == len(KINDS) * HARD_WINDOWS == len(edge.features)
    for found, usual in zip(edge.arrays, inputs.arrays, strict=True):
        assert found.dtype == usual.dtype
        assert found.shape[1:] == usual.shape[1:]
        assert np.isfinite(found).all()


def test_hard_windows_keep_sides_and_accounts(edge: Inputs, inputs: Inputs) -> None:
    base = inputs.slice(0, HARD_WINDOWS)
    assert edge.accounts == base.accounts * len(KINDS)
    for name in KINDS:
        found = kind(edge, name)
        np.testing.assert_array_equal(found.account[:, 0], base.account[:, 0])
        np.testing.assert_array_equal(
            found.account[:, 0], [int(account.side) for account in found.accounts]
        )


def test_hard_features_are_huge_of_both_signs_in_every_place_and_nothing(
    edge: Inputs, inputs: Inputs
) -> None:
    base = inputs.slice(0, HARD_WINDOWS)
    huge = kind(edge, "huge features").features
    np.testing.assert_array_equal(np.abs(huge), np.full_like(huge, 1e6))
    for axis in range(3):  # neighbours differ, within a window and between windows
        np.testing.assert_array_equal(np.diff(np.sign(huge), axis=axis) != 0, True)
    np.testing.assert_array_equal(kind(edge, "large features").features, base.features * 1e3)
    assert np.abs(kind(edge, "large features").features).max() > 1e3
    np.testing.assert_array_equal(kind(edge, "no features").features, np.zeros_like(base.features))
    for name in ("huge accounts", "mirrored", "unknown"):
        np.testing.assert_array_equal(kind(edge, name).features, base.features)


def test_hard_accounts_are_huge_of_both_signs(edge: Inputs, inputs: Inputs) -> None:
    base = inputs.slice(0, HARD_WINDOWS)
    one, other = (kind(edge, name).account[:, 1:] for name in ("huge accounts", "mirrored"))
    np.testing.assert_array_equal(np.abs(one), np.full_like(one, 1e6))
    np.testing.assert_array_equal(other, -one)
    for name in ("huge features", "large features", "no features", "unknown"):
        np.testing.assert_array_equal(kind(edge, name).account, base.account)


def test_hard_names_are_unknown(edge: Inputs, inputs: Inputs) -> None:
    base = inputs.slice(0, HARD_WINDOWS)
    unknown = kind(edge, "unknown")
    assert set(unknown.instrument.tolist()) == set(unknown.timeframe.tolist()) == {0}
    for name in KINDS[:-1]:
        np.testing.assert_array_equal(kind(edge, name).instrument, base.instrument)
        np.testing.assert_array_equal(kind(edge, name).timeframe, base.timeframe)


def test_a_few_windows_make_a_few_hard_ones(inputs: Inputs) -> None:
    few = hard(inputs.slice(0, 2))
    assert len(few) == 2 * len(KINDS)
    np.testing.assert_array_equal(few.features[4:6], np.zeros_like(few.features[:2]))


def test_hard_windows_leave_the_others_alone(inputs: Inputs) -> None:
    before = replace(inputs, features=inputs.features.copy(), account=inputs.account.copy())
    hard(inputs)
    for found, was in zip(inputs.arrays, before.arrays, strict=True):
        np.testing.assert_array_equal(found, was)
