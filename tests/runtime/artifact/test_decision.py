import math
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from synthetic import ACCOUNTS

from hrm_runtime import Account, Action, Decision, Reason
from hrm_runtime.artifact.decision import Array, decision, hold, softmax
from hrm_runtime.market.actions import LEGAL

OK = Decision(
    action=Action.BUY_LONG,
    quantity=3.0,
    value=1.5,
    probabilities=(0.5, 0.25, 0.0, 0.0, 0.25),
    q_values=(0.75, 0.25),
    segments=2,
    reason=Reason.OK,
    model_id="abc",
)


def outputs(**changes: object) -> dict[str, Array]:
    """Two rows; the first prefers 0, the second 1, among all five."""
    given = {
        "action_type": [[3.0, 2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 2.0, 1.0, -1.0]],
        "quantity": [7.9, 0.4],
        "value": [1.25, -0.5],
        "q_values": [[0.75, 0.25], [0.125, 0.5]],
        "z_H_out": np.zeros((2, 3, 4)),
        **changes,
    }
    return {name: np.array(value, dtype=np.float32) for name, value in given.items()}


def decide(row: int = 0, account: Account = ACCOUNTS["flat"], **changes: object) -> Decision:
    return decision(outputs(**changes), row, account, segments=2, model_id="abc", latency_ms=0.5)


def logits(best: Action) -> list[list[float]]:
    """Two rows of logits that prefer `best` by 1, then HOLD."""
    row = [0.0] * 5
    row[Action.HOLD] = 1.0
    row[best] = 2.0
    return [row, row]


# the value object


@pytest.mark.parametrize(
    ("action", "quantity", "words"),
    [
        (Action.BUY_LONG, 1.0, "BUY_LONG 1 lot"),
        (Action.SELL_SHORT, 1_234_567.0, "SELL_SHORT 1,234,567 lots"),
        (Action.CLOSE_LONG, 2.5, "CLOSE_LONG 2.5 lots"),
        (Action.HOLD, 1.0, "HOLD"),
    ],
)
def test_an_order_is_the_action_and_the_lots_that_it_has(
    action: Action, quantity: float, words: str
) -> None:
    assert replace(OK, action=action, quantity=quantity).order == words


def test_reasons_are_pinned() -> None:
    assert [str(reason) for reason in Reason] == [
        "ok",
        "warming_up",
        "stale",
        "gap",
        "out_of_order",
        "future",
        "bad_input",
        "unknown_instrument",
        "unknown_timeframe",
        "non_finite",
        "deadline",
        "breaker",
        "killed",
        "error",
    ]


@pytest.mark.parametrize("change", [{"latency_ms": 9.0}, {"sequence": 4}], ids=str)
def test_latency_and_sequence_are_no_part_of_equality(change: dict[str, float]) -> None:
    assert replace(OK, **change) == OK
    assert hash(replace(OK, **change)) == hash(OK)


@pytest.mark.parametrize(
    "change",
    [
        {"action": Action.HOLD},
        {"quantity": 4.0},
        {"value": 1.25},
        {"probabilities": (0.25, 0.5, 0.0, 0.0, 0.25)},
        {"q_values": (0.25, 0.75)},
        {"segments": 1},
        {"reason": Reason.ERROR},
        {"model_id": "abd"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_else_is(change: dict[str, object]) -> None:
    assert replace(OK, **change) != OK


@pytest.mark.parametrize("name", [field.name for field in fields(Decision)])
def test_a_decision_is_frozen(name: str) -> None:
    with pytest.raises(FrozenInstanceError, match=name):
        setattr(OK, name, 0)


@pytest.mark.parametrize("reason", Reason)
def test_a_decision_is_degraded_unless_it_is_ok(reason: Reason) -> None:
    assert replace(OK, reason=reason).degraded == (reason != "ok")


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.OK])
def test_the_safe_decision_is_one_lot_of_hold_and_nothing_of_the_network(reason: Reason) -> None:
    assert hold(reason, "abc", segments=1, latency_ms=3.0) == Decision(
        action=Action.HOLD,
        quantity=1.0,
        value=0.0,
        probabilities=(0.0, 0.0, 0.0, 0.0, 0.0),
        q_values=(0.0, 0.0),
        segments=1,
        reason=reason,
        model_id="abc",
    )


# from outputs


def test_a_decision_reads_its_own_row() -> None:
    weights = [math.exp(logit) for logit in (0.0, 3.0, 2.0, 1.0, -1.0)]
    found = decide(row=1)
    assert found.probabilities == pytest.approx([w / sum(weights) for w in weights], rel=1e-15)
    assert replace(found, probabilities=OK.probabilities) == Decision(
        action=Action.SELL_SHORT,
        quantity=1.0,
        value=-0.5,
        probabilities=OK.probabilities,
        q_values=(0.125, 0.5),
        segments=2,
        reason=Reason.OK,
        model_id="abc",
    )
    assert (found.latency_ms, found.sequence) == (0.5, 0)


def test_a_decision_is_made_of_plain_python_values() -> None:
    found = decide()
    assert type(found.action) is Action
    floats = (found.quantity, found.value, *found.probabilities, *found.q_values)
    assert {type(number) for number in floats} == {float}


@pytest.mark.parametrize("best", Action)
@pytest.mark.parametrize("side", ACCOUNTS)
def test_the_best_legal_action_is_taken_whatever_the_illegal_ones_say(
    side: str, best: Action
) -> None:
    account = ACCOUNTS[side]
    expected = best if best in LEGAL[account.side] else Action.HOLD
    assert decide(account=account, action_type=logits(best)).action is expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", outputs())
def test_an_output_that_is_not_finite_is_hold_with_its_reason(name: str, value: float) -> None:
    spoilt = outputs()
    spoilt[name].reshape(2, -1)[0, -1] = value
    found = decision(spoilt, 0, ACCOUNTS["flat"], segments=2, model_id="abc")
    assert found == hold(Reason.NON_FINITE, "abc", segments=2)


def test_another_row_s_broken_output_does_not_matter() -> None:
    assert decide(row=1, value=[math.nan, -0.5]) == decide(row=1)


# softmax


def test_softmax_gives_exactly_zero_to_illegal_logits() -> None:
    found = softmax(np.array([1.0, -1e4, -1e4, 2.0, 0.5], dtype=np.float32))
    weights = [math.exp(1.0), 0.0, 0.0, math.exp(2.0), math.exp(0.5)]
    assert found == pytest.approx([weight / sum(weights) for weight in weights], rel=1e-15)
    assert (found[1], found[2]) == (0.0, 0.0)


def test_softmax_is_exact_where_logits_are_equal() -> None:
    assert softmax(np.full(5, 88.0, dtype=np.float32)) == (0.2, 0.2, 0.2, 0.2, 0.2)


def test_softmax_does_not_overflow() -> None:
    assert softmax(np.array([3e38, 0, 0, -3e38, 0], dtype=np.float32)) == (1.0, 0.0, 0.0, 0.0, 0.0)


# quantity


@pytest.mark.parametrize("action", [Action.BUY_LONG, Action.SELL_SHORT])
@pytest.mark.parametrize(
    ("predicted", "lots"), [(7.9, 7.0), (8.0, 8.0), (1.99, 1.0), (0.2, 1.0), (99_999.5, 99_999.0)]
)
def test_an_opening_takes_whole_lots_and_at_least_one(
    action: Action, predicted: float, lots: float
) -> None:
    found = decide(action_type=logits(action), quantity=[predicted, predicted])
    assert (found.action, found.quantity) == (action, lots)


@pytest.mark.parametrize(
    ("side", "action", "lots"),
    [("long", Action.CLOSE_LONG, 3.0), ("short", Action.CLOSE_SHORT, 2.0)],
)
def test_a_close_takes_the_whole_position(side: str, action: Action, lots: float) -> None:
    found = decide(account=ACCOUNTS[side], action_type=logits(action), quantity=[50.0, 50.0])
    assert (found.action, found.quantity) == (action, lots)


@pytest.mark.parametrize("side", ACCOUNTS)
def test_hold_is_one_lot(side: str) -> None:
    found = decide(account=ACCOUNTS[side], action_type=logits(Action.HOLD), quantity=[50.0, 50.0])
    assert (found.action, found.quantity) == (Action.HOLD, 1.0)
