"""Baselines: legal, deterministic, blind to what they are judged on, and able to learn."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from few_trees import few_trees
from synthetic import random_bars

from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_runtime.market.bars import Floats, Integers
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.data.preparation import prepare_series
from hrm_train.data.prepared import Prepared
from hrm_train.judging.baselines import BASELINES, CLIP, Encoder, baselines
from hrm_train.judging.metrics import Hindsight, Metrics, Predictions, metrics
from hrm_train.settings import Settings

BUY, SELL, CLOSE_LONG, CLOSE_SHORT, HOLD = Action
SIGNAL = FEATURES.index("rsi_14")
LEARNERS = ["logistic", "trees"]


@pytest.fixture(scope="module")
def prepared(settings: Settings) -> Prepared:
    """Some 2,000 samples of two instruments and two timeframes."""
    return prepare_series(
        settings,
        {
            ("Nifty", "15"): random_bars(400, seed=1, seconds=900),
            ("Nifty", "5"): random_bars(500, seed=2),
            ("Reliance", "5"): random_bars(500, seed=3),
        },
    )


@pytest.fixture(scope="module")
def known(prepared: Prepared) -> Integers:
    return np.arange(0, len(prepared), 2)


@pytest.fixture(scope="module")
def judged(prepared: Prepared) -> Integers:
    return np.arange(1, len(prepared), 2)


@pytest.fixture(scope="module")
def answers(prepared: Prepared, known: Integers, judged: Integers) -> dict[str, Predictions]:
    with few_trees():
        return baselines(prepared, known, judged)


def signal(prepared: Prepared) -> Floats:
    """What the newest row of each sample says."""
    return prepared.features[prepared.sample_row, SIGNAL]


def ruled(prepared: Prepared) -> Prepared:
    """What is best depends on the sign of one feature, its worth and lots on its size."""
    rng = np.random.default_rng(0)
    features = prepared.features.copy()
    features[:, SIGNAL] = rng.normal(size=len(features))
    drawn = replace(prepared, features=features)
    up = signal(drawn) > 0
    chosen = {
        Side.FLAT: np.where(up, BUY, SELL),
        Side.LONG: np.where(up, HOLD, CLOSE_LONG),
        Side.SHORT: np.where(up, CLOSE_SHORT, HOLD),
    }
    best = np.select([prepared.sample_side == side for side in Side], [*map(chosen.get, Side)])
    returns = np.where(np.isnan(prepared.sample_returns), np.nan, signal(drawn)[:, None] - 1)
    returns[np.arange(len(best)), best] += 1
    lots = np.exp(2 + signal(drawn))
    return replace(drawn, sample_returns=returns.astype(np.float32), sample_lots=lots)


def judge(
    prepared: Prepared, known: Integers, judged: Integers, names: Any = tuple(BASELINES)
) -> dict[str, Metrics]:
    found = baselines(prepared, known, judged)
    return {name: metrics(Hindsight.of(prepared, judged), found[name]) for name in names}


def same(one: Predictions, other: Predictions) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values()))  # noqa: B905


# what they learn


def test_linear_models_and_trees_find_what_one_feature_says(
    prepared: Prepared, known: Integers, judged: Integers
) -> None:
    found = judge(ruled(prepared), known, judged)
    for name in LEARNERS:
        assert found[name].accuracy.value > 0.93, name
        assert found[name].value_r2 is not None, name
        assert found[name].value_r2 > 0.5, name
        assert found[name].quantity_error < 0.6 * found["majority"].quantity_error, name
    assert found["majority"].accuracy.value < 0.6


def test_the_majority_is_what_was_best_most_often_by_side_and_medians(prepared: Prepared) -> None:
    flat, long = (np.flatnonzero(prepared.sample_side == side)[:6] for side in (0, 1))
    returns, lots = prepared.sample_returns.copy(), prepared.sample_lots.copy()
    best = {0: [BUY, SELL, SELL, HOLD, SELL], 1: [HOLD, CLOSE_LONG, HOLD, HOLD, CLOSE_LONG]}
    for side, samples in ((0, flat), (1, long)):
        for number, (sample, action) in enumerate(zip(samples[:5], best[side], strict=True)):
            returns[sample, [int(one) for one in LEGAL[Side(side)]]] = -1.0
            returns[sample, action] = number + side
            lots[sample] = 10.0 ** (number - side)
    changed = replace(prepared, sample_returns=returns, sample_lots=lots)
    known = np.concatenate((long[:5], flat[:5]))
    found = baselines(changed, known, np.array([flat[5], long[5]]))["majority"]
    assert found.action.tolist() == [SELL, HOLD]
    assert found.value.tolist() == [2.0, 3.0]
    assert found.quantity == pytest.approx([100.0, 10.0])


def test_the_inputs_are_the_newest_row_the_account_and_who(
    prepared: Prepared, known: Integers
) -> None:
    found = Encoder(prepared, known)(known)
    rows = prepared.features[prepared.sample_row[known]].astype(np.float64)
    numbers = np.hstack([rows, prepared.sample_account[known]])
    mean, std = numbers.mean(axis=0), numbers.std(axis=0)
    varies = std > 1e-9
    width = len(FEATURES) + len(ACCOUNT)
    np.testing.assert_allclose(
        found[:, :width][:, varies],
        np.clip((numbers - mean) / np.where(varies, std, 1), -CLIP, CLIP)[:, varies],
        rtol=1e-4,
        atol=1e-4,
    )
    for number, (instrument, timeframe) in enumerate(
        zip(prepared.sample_instrument[known], prepared.sample_timeframe[known], strict=True)
    ):
        assert found[number, width:].tolist() == [
            instrument == 1, instrument == 2, timeframe == 1, timeframe == 2
        ]  # fmt: skip


# what they may not do


@pytest.mark.parametrize("name", BASELINES)
def test_answers_are_legal_and_lots_above_zero(
    name: str, answers: dict[str, Predictions], prepared: Prepared, judged: Integers
) -> None:
    found = answers[name]
    legal = ~np.isnan(prepared.sample_returns[judged, found.action])
    assert legal.all()
    assert (found.quantity > 0).all()
    assert np.isfinite(found.value).all()
    assert set(prepared.sample_side[judged].tolist()) == {-1, 0, 1}


@few_trees()
def test_nothing_that_is_judged_changes_an_answer(
    prepared: Prepared, known: Integers, judged: Integers, answers: dict[str, Predictions]
) -> None:
    returns, lots = prepared.sample_returns.copy(), prepared.sample_lots.copy()
    returns[judged] *= -7
    lots[judged] = 1
    changed = replace(prepared, sample_returns=returns, sample_lots=lots)
    some = judged[::5]
    for name, found in baselines(changed, known, some).items():
        own = answers[name]
        assert found.action.tolist() == own.action[::5].tolist()
        assert found.value == pytest.approx(own.value[::5], rel=1e-9)
        assert found.quantity == pytest.approx(own.quantity[::5], rel=1e-9)


@few_trees()
def test_the_same_samples_and_seed_give_the_same_answers(
    prepared: Prepared, known: Integers, judged: Integers, answers: dict[str, Predictions]
) -> None:
    again = baselines(prepared, known, judged, seed=0)
    assert [same(again[name], answers[name]) for name in BASELINES] == [True] * 3
    assert list(again) == ["majority", "logistic", "trees"]


# odd data


@pytest.fixture(scope="module")
def narrow(
    prepared: Prepared, known: Integers, judged: Integers
) -> dict[str, dict[Side, set[int]]]:
    """What is answered on each side where, of what is known, SELL was never best when flat and
    CLOSE_LONG never when long.
    """
    returns = prepared.sample_returns.copy()
    for side, action in ((Side.FLAT, SELL), (Side.LONG, CLOSE_LONG)):
        returns[known[prepared.sample_side[known] == side], action] = -100.0
    with few_trees():
        found = baselines(replace(prepared, sample_returns=returns), known, judged)
    sides = prepared.sample_side[judged]
    return {
        name: {side: set(found[name].action[sides == side].tolist()) for side in Side}
        for name in BASELINES
    }


@pytest.mark.parametrize("name", LEARNERS)
def test_an_action_never_best_before_is_never_answered(
    name: str, narrow: dict[str, dict[Side, set[int]]]
) -> None:
    assert narrow[name] == {
        Side.FLAT: {BUY, HOLD},
        Side.LONG: {HOLD},
        Side.SHORT: {CLOSE_SHORT, HOLD},
    }
    assert all(len(answered) == 1 for answered in narrow["majority"].values())


@few_trees()
def test_on_a_side_of_which_nothing_is_known_they_hold(
    prepared: Prepared, known: Integers, judged: Integers
) -> None:
    flat = known[prepared.sample_side[known] == Side.FLAT]
    held = judged[prepared.sample_side[judged] != Side.FLAT]
    found = baselines(prepared, flat, held)
    assert {action for one in found.values() for action in one.action.tolist()} == {HOLD}
    best = np.nanmax(prepared.sample_returns[flat], axis=1).astype(np.float64)
    assert set(found["majority"].value.tolist()) == {float(np.median(best))}
    for name in LEARNERS:
        assert np.ptp(found[name].value) > 0
        assert np.isfinite(found[name].value).all()


def one_series(prepared: Prepared) -> Prepared:
    ones = np.ones(len(prepared), dtype=np.int64)
    return replace(prepared, sample_instrument=ones, sample_timeframe=ones)


def constant_columns(prepared: Prepared) -> Prepared:
    features = prepared.features.copy()
    features[:, 1::2] = 0.1
    return replace(prepared, features=features)


def extreme_accounts(prepared: Prepared) -> Prepared:
    account = prepared.sample_account.copy()
    account[::50, 1] = np.finfo(np.float32).max
    return replace(prepared, sample_account=account)


@few_trees()
@pytest.mark.parametrize("odd", [one_series, constant_columns, extreme_accounts])
def test_odd_data_takes_nothing_from_what_can_be_learned(
    odd: Callable[[Prepared], Prepared], prepared: Prepared, known: Integers, judged: Integers
) -> None:
    found = judge(ruled(odd(prepared)), known, judged, LEARNERS)
    assert min(one.accuracy.value for one in found.values()) > 0.9


@few_trees()
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_samples_are_learned_from(count: int, prepared: Prepared, judged: Integers) -> None:
    known = np.flatnonzero(prepared.sample_side == Side.FLAT)[:count]
    found = baselines(prepared, known, judged)
    for name in BASELINES:
        legal = ~np.isnan(prepared.sample_returns[judged, found[name].action])
        assert legal.all()
        assert np.isfinite(found[name].value).all()


def test_an_instrument_never_seen_before_is_none_of_the_known(
    prepared: Prepared, known: Integers, judged: Integers
) -> None:
    own = known[prepared.sample_instrument[known] == 1]
    other = judged[prepared.sample_instrument[judged] == 2]
    width = len(FEATURES) + len(ACCOUNT)
    assert Encoder(prepared, own)(other)[:, width].tolist() == [0.0] * len(other)
    assert Encoder(prepared, own)(own)[:, width].tolist() == [1.0] * len(own)


def test_what_lies_far_outside_counts_as_the_outermost(prepared: Prepared, known: Integers) -> None:
    features = prepared.features.copy()
    features[prepared.sample_row[1]] = 1e30
    found = Encoder(replace(prepared, features=features), known[known > 99])(np.array([1]))
    assert found[0, : len(FEATURES)].max() == CLIP


def test_no_sample_is_judged_without_harm(prepared: Prepared, known: Integers) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert [len(one.action) for one in baselines(prepared, known, nothing).values()] == [0, 0, 0]
