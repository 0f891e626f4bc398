"""Held-out windows: enough to compute a decision from, spread evenly, kept bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hrm_runtime.market.account import vector
from hrm_runtime.market.bars import Floats, Integers
from hrm_runtime.market.features import rows
from hrm_runtime.market.instruments import name_of
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split
from hrm_train.data.windows import Windows, concatenate, round_robin, spread, windows
from hrm_train.errors import CheckpointInvalid

HISTORY, WINDOW = 200, 6
BARS_NEEDED = HISTORY + WINDOW - 1


@pytest.fixture(scope="module")
def chosen(prepared: Prepared, split: Split) -> Integers:
    return spread(prepared, split.validation, 18, seed=0)


@pytest.fixture(scope="module")
def held_out(prepared: Prepared, chosen: Integers) -> Windows:
    return windows(prepared, chosen, BARS_NEEDED)


def sides(prepared: Prepared, samples: Integers) -> Floats:
    quantity: Floats = prepared.sample_raw_account[samples, 1]
    return np.sign(quantity)


@pytest.mark.parametrize("index", range(18))
def test_the_bars_and_account_of_a_window_reproduce_what_was_prepared(
    index: int, prepared: Prepared, chosen: Integers, held_out: Windows
) -> None:
    sample = chosen[index]
    newest = prepared.sample_row[sample]
    table = rows(held_out.bars(index), HISTORY)
    assert np.array_equal(
        [row.values for row in table], prepared.features[newest - WINDOW + 1 : newest + 1]
    )
    known = prepared.manifest.vocabulary.instruments
    made = vector(
        held_out.account(index),
        close=table[-1].close,
        atr=table[-1].atr,
        instrument=known[name_of(known, int(held_out.instrument[index]))],
        brokerage_entry=25.0,
        quantity_max=1e5,
    )
    assert np.array_equal(made, prepared.sample_account[sample])
    assert held_out.instrument[index] == prepared.sample_instrument[sample]
    assert held_out.timeframe[index] == prepared.sample_timeframe[sample]


def test_some_windows_are_those_windows_in_that_order(held_out: Windows) -> None:
    some = held_out[np.array([5, 2])]
    assert (len(held_out), len(some)) == (18, 2)
    for name, array in vars(held_out).items():
        assert np.array_equal(getattr(some, name), array[[5, 2]])


@pytest.mark.parametrize("count", [9, 13, 45])
def test_a_spread_takes_as_many_of_each_kind_as_of_any_other(
    count: int, prepared: Prepared
) -> None:
    everything = np.arange(len(prepared))
    taken = spread(prepared, everything, count, seed=0)
    kinds = np.stack(
        [
            prepared.sample_instrument[taken],
            prepared.sample_timeframe[taken],
            sides(prepared, taken),
        ]
    )
    found, counts = np.unique(kinds, axis=1, return_counts=True)
    assert found.shape == (3, 9)
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(taken, np.unique(taken))


def test_a_spread_takes_what_there_is_where_a_kind_is_rare(prepared: Prepared) -> None:
    side = sides(prepared, np.arange(len(prepared)))
    candidates = np.concatenate([np.flatnonzero(side == 0)[:30], np.flatnonzero(side == 1)[:2]])
    taken = spread(prepared, candidates, 12, seed=0)
    assert sorted(side[taken]) == [0] * 10 + [1] * 2
    assert np.array_equal(spread(prepared, candidates, 99, seed=0), np.sort(candidates))


def test_a_spread_is_seeded(prepared: Prepared, split: Split) -> None:
    one, same, other = (spread(prepared, split.validation, 18, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_round_robin_takes_one_of_each_kind_in_turn() -> None:
    kinds = (np.array([7, 7, 7, 3, 3, 7]), np.array([0, 0, 0, 0, 0, 1]))
    # kinds in order: (3, 0) has items 3 and 4; (7, 0) has 0, 1 and 2; (7, 1) has 5
    order = round_robin(kinds).tolist()
    assert [set(order[:3]), set(order[3:5]), order[5]] == [{0, 3, 5}, {1, 4}, 2]


def test_saved_windows_are_read_back_bit_for_bit(held_out: Windows, tmp_path: Path) -> None:
    held_out.save(tmp_path / "windows.safetensors")
    loaded = Windows.load(tmp_path / "windows.safetensors")
    for name, array in vars(held_out).items():
        np.testing.assert_array_equal(getattr(loaded, name), array, strict=True)


def test_a_file_that_holds_no_windows_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "windows.safetensors"
    with pytest.raises(CheckpointInvalid, match=r"windows\.safetensors: expected held-out windows"):
        Windows.load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointInvalid, match=r"windows\.safetensors: expected held-out windows"):
        Windows.load(path)
    save_file({"stamps": np.zeros(3)}, path)
    with pytest.raises(
        CheckpointInvalid, match=r"held-out windows: .*missing 4 required.*'prices'"
    ):
        Windows.load(path)


def test_no_items_are_in_no_order() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert round_robin((none, none)).tolist() == []


def test_concatenating_keeps_each_window_whole(held_out: Windows) -> None:
    both = concatenate(held_out[np.array([2, 1])], held_out[np.array([0])])
    for name, array in vars(held_out).items():
        np.testing.assert_array_equal(getattr(both, name), array[[2, 1, 0]])
