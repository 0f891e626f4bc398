"""Metrics by hand, by construction and against scikit-learn; intervals that cover what they say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score

from hrm_runtime.backtest.bootstrap import LEAST_BLOCKS
from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_runtime.market.bars import Floats
from hrm_train.data.prepared import Prepared
from hrm_train.judging.metrics import Estimate, Hindsight, Predictions, joined, metrics

NAN = math.nan
BUY, SELL, CLOSE_LONG, CLOSE_SHORT, HOLD = Action

# best: BUY, HOLD, HOLD, CLOSE_SHORT; at stake: 2, 1, 0.5, 0.25
RETURNS = np.array(
    [
        [1.0, -1.0, NAN, NAN, 0.5],
        [-0.5, -1.0, NAN, NAN, 0.0],
        [NAN, NAN, -0.25, NAN, 0.25],
        [NAN, NAN, NAN, 0.5, 0.25],
    ]
)
TRUTH = Hindsight(
    returns=RETURNS,
    lots=np.array([1.0, 2.0, 4.0, 8.0]),
    side=np.array([0, 0, 1, -1]),
    block=np.arange(4),
)
# one BUY right, one for HOLD wrong; one CLOSE_LONG wrong; one CLOSE_SHORT right
FOUND = Predictions(
    action=np.array([BUY, BUY, CLOSE_LONG, CLOSE_SHORT], dtype=np.int64),
    quantity=np.array([1.0, 4.0, 1.0, 8.0]),
    value=np.array([0.0, 0.0, 0.25, 0.5]),
)


def random_case(seed: int, count: int = 300) -> tuple[Hindsight, Predictions]:
    """Samples on all sides in blocks of five, and legal actions chosen at random."""
    rng = np.random.default_rng(seed)
    side = rng.integers(-1, 2, count)
    returns, action = np.full((count, 5), NAN), np.zeros(count, dtype=np.int64)
    for row in range(count):
        legal = list(LEGAL[Side(int(side[row]))])
        returns[row, legal] = rng.normal(size=len(legal))
        action[row] = rng.choice(legal)
    truth = Hindsight(returns, rng.uniform(1, 50, count), side, np.arange(count) // 5)
    return truth, Predictions(action, rng.uniform(1, 50, count), rng.normal(size=count))


def perfect(truth: Hindsight) -> Predictions:
    return Predictions(np.nanargmax(truth.returns, axis=1), truth.lots, truth.best)


def test_a_small_case_by_hand() -> None:
    found = metrics(TRUTH, FOUND)
    assert found.accuracy.value == 2 / 4
    assert found.accuracy_by_side == {"short": 1.0, "flat": 0.5, "long": 0.0}
    assert found.regret.value == (0.5 + 0.5) / 4
    # F1: BUY 2/3, CLOSE_LONG 0, CLOSE_SHORT 1, HOLD 0; SELL is neither best nor chosen
    assert found.macro_f1 == pytest.approx((2 / 3 + 0 + 1 + 0) / 4)
    assert found.weighted_accuracy == pytest.approx((2 + 0.25) / 3.75)
    # BUY: 2 x 2 / (2 + 3)
    assert found.weighted_macro_f1 == pytest.approx((4 / 5 + 0 + 1 + 0) / 4)
    assert found.weighted_regret == pytest.approx((0.5 * 1 + 0.5 * 0.5) / 3.75)
    assert found.quantity_error == pytest.approx((0 + math.log(2) + math.log(4) + 0) / 4)
    # best returns 1, 0, 0.25, 0.5, on average 0.4375; only the first is missed, by 1
    around = 0.5625**2 + 0.4375**2 + 0.1875**2 + 0.0625**2
    assert found.value_r2 == pytest.approx(1 - 1 / around)
    assert found.over_majority is None


def test_what_was_best_and_at_stake_by_hand() -> None:
    assert TRUTH.best.tolist() == [1.0, 0.0, 0.25, 0.5]
    assert TRUTH.stake.tolist() == [2.0, 1.0, 0.5, 0.25]
    assert TRUTH.regret(FOUND.action).tolist() == [0.0, 0.5, 0.5, 0.0]
    assert (len(TRUTH), TRUTH.blocks) == (4, 4)


def test_a_predictor_that_knows_the_truth_is_right_gives_nothing_up_and_is_sure() -> None:
    truth, _ = random_case(0)
    found = metrics(truth, perfect(truth))
    for estimate, expected in ((found.accuracy, 1.0), (found.regret, 0.0)):
        assert (estimate.value, estimate.low, estimate.high) == (expected,) * 3
    assert found.accuracy_by_side == {"short": 1.0, "flat": 1.0, "long": 1.0}
    assert found.macro_f1 == found.weighted_macro_f1 == found.weighted_accuracy == 1.0
    assert found.weighted_regret == found.quantity_error == 0.0
    assert found.value_r2 == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    truth, guess = random_case(seed)
    best = perfect(truth).action
    found = metrics(truth, guess)
    stake = truth.stake
    expected = {
        "macro_f1": f1_score(best, guess.action, average="macro"),
        "weighted_macro_f1": f1_score(best, guess.action, average="macro", sample_weight=stake),
        "weighted_accuracy": accuracy_score(best, guess.action, sample_weight=stake),
        "weighted_regret": mean_absolute_error(
            truth.best, truth.best - truth.regret(guess.action), sample_weight=stake
        ),
        "quantity_error": mean_absolute_error(np.log(truth.lots), np.log(guess.quantity)),
        "value_r2": r2_score(truth.best, guess.value),
    }
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)
    assert found.accuracy.value == pytest.approx(accuracy_score(best, guess.action))


@pytest.mark.parametrize(("action", "right"), [(BUY, 1.0), (HOLD, 1.0), (SELL, 0.0)])
def test_each_of_several_best_actions_is_right(action: Action, right: float) -> None:
    truth = Hindsight(
        returns=np.array([[0.5, -1.0, NAN, NAN, 0.5]]),
        lots=np.ones(1),
        side=np.zeros(1, dtype=np.int64),
        block=np.zeros(1, dtype=np.int64),
    )
    found = metrics(truth, Predictions(np.array([int(action)]), np.ones(1), np.ones(1)))
    assert found.accuracy.value == found.macro_f1 == found.weighted_macro_f1 == right
    assert found.accuracy_by_side == {"flat": right}


def test_what_is_not_defined_is_none() -> None:
    truth = replace(TRUTH, returns=np.where(np.isnan(RETURNS), NAN, 0.5))
    found = metrics(truth, FOUND)
    assert found.accuracy.value == found.macro_f1 == 1.0
    assert found.weighted_accuracy is None
    assert found.weighted_macro_f1 is None
    assert found.weighted_regret is None
    assert found.value_r2 is None


def test_an_illegal_action_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="legal on their side"):
        metrics(TRUTH, replace(FOUND, action=np.array([CLOSE_LONG, BUY, HOLD, HOLD])))


# intervals


def block_means_interval(values: Floats, size: int) -> tuple[float, float]:
    """By hand: blocks of equal size, drawn with replacement, as seeded in the runtime."""
    means = values.reshape(-1, size).mean(axis=1)
    drawn = np.random.default_rng(0).integers(len(means), size=(2000, len(means)))
    low, high = np.quantile(means[drawn].mean(axis=1), [0.025, 0.975])
    return low, high


def test_intervals_are_those_of_averages_over_drawn_blocks() -> None:
    truth, guess = random_case(5)
    majority = replace(guess, action=np.where(np.arange(300) % 3, guess.action, HOLD))
    found = metrics(truth, guess, majority)
    regret = truth.regret(guess.action)
    hit = (regret == 0).astype(float)
    difference = hit - (truth.regret(majority.action) == 0)
    for estimate, values in (
        (found.accuracy, hit),
        (found.regret, regret),
        (found.over_majority, difference),
    ):
        assert estimate is not None
        assert estimate.value == pytest.approx(values.mean())
        assert (estimate.low, estimate.high) == pytest.approx(block_means_interval(values, 5))


def test_a_predictor_that_answers_as_the_majority_is_surely_no_better() -> None:
    truth, guess = random_case(7)
    over = metrics(truth, guess, guess).over_majority
    assert over is not None
    assert (over.value, over.low, over.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("blocks", "known"), [(LEAST_BLOCKS - 1, False), (LEAST_BLOCKS, True)])
def test_there_is_no_interval_over_too_few_blocks(blocks: int, known: bool) -> None:
    truth, guess = random_case(8)
    found = metrics(replace(truth, block=np.arange(300) % blocks), guess, perfect(truth))
    for estimate in (found.accuracy, found.regret, found.over_majority):
        assert estimate is not None
        assert (estimate.low is not None, estimate.high is not None) == (known, known)


def walk(rng: np.random.Generator, count: int, horizon: int) -> Hindsight:
    """Flat samples of a random walk: BUY is best where it has risen a horizon later."""
    price = np.cumsum(rng.normal(size=count + horizon))
    gain = price[horizon:] - price[:count]
    returns = np.full((count, 5), NAN)
    returns[:, BUY], returns[:, SELL] = gain, -gain
    return Hindsight(
        returns,
        np.ones(count),
        np.zeros(count, dtype=np.int64),
        np.arange(count) // (2 * horizon),
    )


ALWAYS_BUY = Predictions(np.full(600, BUY, dtype=np.int64), np.ones(600), np.ones(600))


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Always to buy on a random walk is right half of the time, in runs as long as the label."""
    rng = np.random.default_rng(0)
    found = [metrics(walk(rng, 600, horizon=10), ALWAYS_BUY).accuracy for _ in range(200)]
    covers = [one.low is not None and one.low <= 0.5 <= (one.high or 0.0) for one in found]
    assert 0.86 <= np.mean(covers) <= 0.98


def test_samples_drawn_one_by_one_would_be_far_too_sure() -> None:
    truth = walk(np.random.default_rng(1), 600, horizon=10)
    alone = replace(truth, block=np.arange(600))
    assert width(metrics(truth, ALWAYS_BUY).accuracy) > 2 * width(
        metrics(alone, ALWAYS_BUY).accuracy
    )


# hindsight of prepared samples


def test_hindsight_is_what_was_prepared(prepared: Prepared) -> None:
    samples = np.array([5, 300, 700])
    found = Hindsight.of(prepared, samples)
    np.testing.assert_array_equal(found.returns, prepared.sample_returns[samples])
    assert found.returns.dtype == found.lots.dtype == np.float64
    np.testing.assert_array_equal(found.lots, prepared.sample_lots[samples])
    for row, sample in enumerate(samples):
        quantity = prepared.sample_raw_account[sample, 1]
        assert found.side[row] == int(quantity > 0) - int(quantity < 0)
        legal = np.flatnonzero(~np.isnan(found.returns[row]))
        assert legal.tolist() == sorted(LEGAL[Side(int(found.side[row]))])


def test_blocks_are_of_two_of_the_longest_label_over_all_series(prepared: Prepared) -> None:
    """Six bars of 15 minutes, 5400 s; what is of 5 minutes is in the same blocks."""
    found = Hindsight.of(prepared, np.arange(len(prepared)))
    stamp = prepared.sample_stamp
    wanted = (stamp - stamp.min()) // 10_800
    assert (prepared.sample_end - stamp).max() == 5400
    numbers = {number: rank for rank, number in enumerate(sorted(set(wanted.tolist())))}
    assert found.block.tolist() == [numbers[number] for number in wanted.tolist()]
    assert found.blocks == len(numbers)
    shared = set(found.block[prepared.sample_timeframe == 1].tolist())
    assert shared & set(found.block[prepared.sample_timeframe == 2].tolist())


def test_a_stretch_without_samples_is_no_block(prepared: Prepared) -> None:
    number = (prepared.sample_stamp - prepared.sample_stamp.min()) // 10_800
    ends = np.flatnonzero((number == 0) | (number == number.max()))
    assert number.max() > 3
    assert Hindsight.of(prepared, ends).block.tolist() == [int(n > 0) for n in number[ends]]


def test_joined_predictions_keep_their_order() -> None:
    both = joined([FOUND, replace(FOUND, quantity=2 * FOUND.quantity)])
    assert both.action.tolist() == [*FOUND.action, *FOUND.action]
    assert both.quantity.tolist() == [1.0, 4.0, 1.0, 8.0, 2.0, 8.0, 2.0, 16.0]
    assert both.value.tolist() == [*FOUND.value, *FOUND.value]
