"""A trace is `decide`, looked at more closely."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    Account,
    Action,
    BadAccount,
    Bars,
    Model,
    Reason,
    TooFewBars,
    UnknownInstrument,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.artifact.model import network_inputs
from hrm_runtime.artifact.segments import Outputs
from hrm_runtime.market.features import rows
from hrm_runtime.measure.trace import Trace, trace

BARS = random_bars(260, seed=21, seconds=900)
ON = {"instrument": "Beta", "timeframe": "15"}


def limited(model: Model, segments: int) -> Model:
    """The model with another limit."""
    other = copy(model)
    other.contract = replace(model.contract, max_segments=segments)
    return other


def answering(model: Model, segments: int, **each: list[Any]) -> Model:
    """The model with what its passes answer, one after the other, set for some outputs."""
    passes: Iterator[dict[str, Any]] = (
        dict(zip(each, values, strict=True)) for values in zip(*each.values(), strict=True)
    )
    answers = list(passes) * 2  # a trace decides, and then looks again
    run = model.run

    def answer(*arguments: Any, **states: Any) -> Outputs:
        told = {name: np.array([value], np.float32) for name, value in answers.pop(0).items()}
        return {**run(*arguments, **states), **told}

    other = limited(model, segments)
    other.run = answer  # type: ignore[method-assign]
    return other


def restless(model: Model, segments: int) -> Model:
    """The model with another limit, which it always reaches."""
    run = model.run

    def answer(*arguments: Any, **states: Any) -> Outputs:
        return {**run(*arguments, **states), "q_values": np.array([[0.25, 0.5]], np.float32)}

    other = limited(model, segments)
    other.run = answer  # type: ignore[method-assign]
    return other


def by_hand(model: Model, account: Account, bars: Bars) -> list[Outputs]:
    """The first segments of a decision at the end of `bars`, each from the states before."""
    contract = model.contract
    window = rows(bars[-contract.bars_needed :], contract.features.history_bars)
    inputs = network_inputs(contract, window, account, contract.instruments["Beta"], 1)
    passes = [model.run(*inputs)]
    for _ in range(2):
        states = {name: passes[-1][f"{name}_out"] for name in ("z_H", "z_L")}
        passes.append(model.run(*inputs, **states))
    return passes


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=list(ACCOUNTS))
def test_the_last_segment_decides_what_decide_does(model: Model, account: Account) -> None:
    found = trace(model, BARS, account, **ON)
    decision = model.decide(BARS, account, **ON)
    assert found.decision == found.segments[-1].decision == decision
    assert len(found.segments) == decision.segments
    assert (found.instrument, found.timeframe, found.account) == ("Beta", "15", account)
    assert (found.datetime, found.close) == (BARS.datetime[-1], BARS.close[-1])
    assert (type(found.datetime), type(found.close)) == (int, float)


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=list(ACCOUNTS))
def test_a_segment_decides_what_it_would_have_as_the_last(model: Model, account: Account) -> None:
    found = trace(restless(model, 3), BARS, account, **ON)
    for number, segment in enumerate(found.segments, start=1):
        assert segment.decision == restless(model, number).decide(BARS, account, **ON)
    assert len({segment.decision.probabilities for segment in found.segments}) == 3


def test_residuals_are_those_of_each_pass(model: Model) -> None:
    found = trace(restless(model, 3), BARS, ACCOUNTS["long"], **ON)
    for segment, outputs in zip(
        found.segments, by_hand(model, ACCOUNTS["long"], BARS), strict=True
    ):
        np.testing.assert_array_equal(segment.l_residual, outputs["l_residual"][0], strict=True)
        np.testing.assert_array_equal(segment.h_residual, outputs["h_residual"][0], strict=True)
        assert segment.l_residual.shape == (2, 2)


def halting_at(model: Model, *q_values: tuple[float, float], limit: int) -> Trace:
    changed = answering(model, limit, q_values=list(q_values))
    return trace(changed, BARS, ACCOUNTS["flat"], **ON)


def test_it_stops_where_halting_is_worth_more(model: Model) -> None:
    found = halting_at(model, (0.25, 0.5), (0.5, 0.5), (0.75, 0.5), limit=5)
    assert len(found.segments) == 3
    assert found.halted
    assert [s.decision.q_values for s in found.segments] == [(0.25, 0.5), (0.5, 0.5), (0.75, 0.5)]


def test_it_stops_at_the_limit(model: Model) -> None:
    found = halting_at(model, (0.25, 0.5), (0.5, 0.5), limit=2)
    assert len(found.segments) == 2
    assert not found.halted


def test_an_answer_that_is_not_finite_shows_where_it_came_from(model: Model) -> None:
    changed = answering(model, 4, value=[1.0, np.nan], q_values=[(0.0, 1.0), (0.0, 1.0)])
    found = trace(changed, BARS, ACCOUNTS["flat"], **ON)
    first, second = (segment.decision for segment in found.segments)
    assert (first.reason, first.value) == (Reason.OK, 1.0)
    assert found.decision == second == hold(Reason.NON_FINITE, model.id, segments=2)
    assert (found.decision.action, found.halted) == (Action.HOLD, False)


def test_bars_before_those_it_needs_change_nothing(model: Model) -> None:
    first = trace(model, BARS, ACCOUNTS["short"], **ON)
    second = trace(model, BARS[-model.contract.bars_needed :], ACCOUNTS["short"], **ON)
    assert first.decision == second.decision
    for one, other in zip(first.segments, second.segments, strict=True):
        assert np.array_equal(one.l_residual, other.l_residual)


def test_bars_and_account_may_be_mappings_as_for_decide(model: Model) -> None:
    account = ACCOUNTS["long"]
    found = trace(model, {**vars(BARS)}, vars(account), **ON)
    assert found.decision == trace(model, BARS, account, **ON).decision
    assert found.account == account


def test_what_decide_refuses_is_refused(model: Model) -> None:
    with pytest.raises(TooFewBars, match="expected at least 205 for one decision, found 204"):
        trace(model, BARS[:204], ACCOUNTS["flat"], **ON)
    with pytest.raises(UnknownInstrument, match="found 'Gamma'"):
        trace(model, BARS, ACCOUNTS["flat"], instrument="Gamma", timeframe="15")
    with pytest.raises(BadAccount, match="expected an Account or a mapping, found NoneType"):
        trace(model, BARS, None, **ON)  # type: ignore[arg-type]
