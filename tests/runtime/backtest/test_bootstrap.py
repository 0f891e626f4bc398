"""The bootstrap against everything it could have drawn, known variances and hand-made sums."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from hrm_runtime import BadInput
from hrm_runtime.backtest.bootstrap import LEAST_BLOCKS, block_sums, interval, resampled_ratios

ABOVE = np.array([3.0, -1.0, 4.0, 1.0, -5.0])
BELOW = np.array([1.0, 2.0, 1.0, 3.0, 1.0])


def everything(block: int) -> dict[float, float]:
    """Each ratio that five entries can give, drawn in blocks, with its probability."""
    lengths = [block] * (5 // block) + ([5 % block] if 5 % block else [])
    ways = Counter(
        round(ratio([(start + i) % 5 for start, length in drawn for i in range(length)]), 12)
        for starts in product(range(5), repeat=len(lengths))
        for drawn in [list(zip(starts, lengths, strict=True))]
    )
    return {value: count / sum(ways.values()) for value, count in ways.items()}


def ratio(entries: list[int]) -> float:
    return sum(ABOVE[i] for i in entries) / sum(BELOW[i] for i in entries)


# resampled_ratios


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_each_drawn_series_is_as_likely_as_its_blocks_are(block: int) -> None:
    drawn = resampled_ratios(ABOVE, BELOW, block, resamples=40_000).round(12)
    expected = everything(block)
    values, counts = np.unique(drawn, return_counts=True)
    assert set(values.tolist()) <= set(expected)
    assert sum(p for value, p in expected.items() if value not in values) < 0.01
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        assert count / 40_000 == pytest.approx(expected[value], abs=0.01)


def test_one_block_of_all_entries_is_the_series_itself() -> None:
    np.testing.assert_allclose(resampled_ratios(ABOVE, BELOW, 5, 100), 2.0 / 8.0, rtol=1e-15)


def test_dependence_within_blocks_is_kept() -> None:
    values = np.repeat(np.random.default_rng(3).normal(size=200), 8)  # eight equal ones in turn
    ones = np.ones(len(values))
    alone, together = (resampled_ratios(values, ones, block).std() for block in (1, 80))
    assert alone == pytest.approx(values.std() / math.sqrt(1600), rel=0.05)
    assert together == pytest.approx(values.std() / math.sqrt(200), rel=0.15)


def test_the_seed_decides() -> None:
    first, again, other = (resampled_ratios(ABOVE, BELOW, 2, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_was_drawn_without_a_denominator_is_left_out() -> None:
    found = resampled_ratios([1.0, 7.0, 2.0], [0.0, 2.0, 0.0], 1, resamples=1000)
    assert 0.6 * 1000 < len(found) < 0.8 * 1000  # the second is drawn with 1 - (2 / 3) ** 3 = 0.70
    assert set(found.round(12).tolist()) == {
        round((7 * n + extra) / (2 * n), 12)
        for n, extras in ((1, (2, 3, 4)), (2, (1, 2)), (3, (0,)))
        for extra in extras
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"numerators": [1.0]},
            r"numerators and denominators of one length, found \[1\] and \[5\]",
        ),
        ({"numerators": [], "denominators": []}, r"of one length, found \[0\] and \[0\]"),
        ({"numerators": np.eye(5)}, r"of one length, found \[5, 5\] and \[5\]"),
        ({"numerators": [0, 0, math.nan, 0, 0]}, "expected finite numerators and denominators"),
        ({"denominators": [1, 1, 1, math.inf, 1]}, "expected finite numerators and denominators"),
        ({"denominators": [1, 1, -1, 1, 1]}, "expected denominators >= 0 with a sum above 0"),
        ({"denominators": [0] * 5}, "expected denominators >= 0 with a sum above 0"),
        ({"block": 0}, "block: expected 1 to 5 entries, found 0"),
    ],
)
@pytest.mark.parametrize("function", [resampled_ratios, interval], ids=lambda f: f.__name__)
def test_what_cannot_be_resampled_is_refused(
    function: Callable[..., object], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        function(**{"numerators": ABOVE, "denominators": BELOW, **change})


@pytest.mark.parametrize("block", [-1, 6])
def test_a_block_fits_the_series(block: int) -> None:
    with pytest.raises(BadInput, match=f"block: expected 1 to 5 entries, found {block}"):
        resampled_ratios(ABOVE, BELOW, block)


# interval


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 900)
    low, high = interval(values, np.ones(900), resamples=6_000)
    error = 1.96 * values.std() / 30
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.01)
    narrow = interval(values, np.ones(900), confidence=0.5, resamples=6_000)
    error = 0.6745 * values.std() / 30
    assert narrow == pytest.approx((values.mean() - error, values.mean() + error), abs=0.01)


def test_the_interval_of_a_sum_is_in_its_unit() -> None:
    changes, capital = np.random.default_rng(1).normal(0.3, 1.0, 400), 50.0
    found = interval(changes, np.full(400, capital / 400), block=4)
    mean = interval(changes, np.ones(400), block=4)
    assert found == pytest.approx([400 / capital * bound for bound in mean])


def test_the_truth_is_inside_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for number in range(300):
        noise = rng.normal(size=303)
        values = noise[3:] + noise[2:-1] + noise[1:-2] + noise[:-3]  # the mean is 0
        low, high = interval(values, np.ones(300), block=15, resamples=400, seed=number)
        inside += low <= 0 <= high
    assert 0.88 < inside / 300 < 0.98


def test_too_few_blocks_say_nothing() -> None:
    values, ones = np.arange(50.0), np.ones(50)
    assert interval(values, ones, block=6) == (-math.inf, math.inf)
    assert interval(values, ones, block=51) == (-math.inf, math.inf)
    low, high = interval(values, ones, block=5)
    assert LEAST_BLOCKS == 10
    assert 0 < low < 24.5 < high < 49


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_is_a_probability(confidence: float) -> None:
    with pytest.raises(BadInput, match=f"confidence: expected between 0 and 1, found {confidence}"):
        interval(ABOVE, BELOW, confidence=confidence)


def test_bounds_are_plain_floats() -> None:
    assert [type(bound) for bound in interval(np.arange(20.0), np.ones(20))] == [float, float]


# block_sums


def test_samples_of_one_block_are_summed_in_order_of_its_id() -> None:
    found = block_sums([1, 2, 3, 4, 5], [7, -2, 7, 30, -2])
    assert found.tolist() == [7.0, 4.0, 4.0]
    assert found.dtype == np.float64


def test_whole_blocks_are_drawn() -> None:
    day = np.repeat(np.arange(40), 25)
    hit = day % 2  # all of a day's samples agree
    alone = interval(hit, np.ones(1000))
    days = interval(block_sums(hit, day), block_sums(np.ones(1000), day))
    assert days[1] - days[0] == pytest.approx(5 * (alone[1] - alone[0]), rel=0.1)  # sqrt(25)


@pytest.mark.parametrize("blocks", [[1, 2], [1.0, 2.0, 3.0], [[1], [2], [3]]])
def test_every_value_has_a_block(blocks: object) -> None:
    with pytest.raises(BadInput, match="blocks: expected a whole number for each of 3 values"):
        block_sums([1.0, 2.0, 3.0], blocks)  # type: ignore[arg-type]
