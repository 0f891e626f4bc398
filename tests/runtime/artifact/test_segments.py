"""Segments, by a fake graph."""

from typing import Any

import numpy as np
import pytest
from synthetic import ACCOUNTS

from hrm_runtime import Reason
from hrm_runtime.artifact.decision import hold
from hrm_runtime.artifact.segments import Outputs, decisions, run_segments, segments_of
from hrm_runtime.market.actions import ILLEGAL_LOGIT


class Script:
    """Answers pass n with the given (halt, continue) per row and states full of n.

    It remembers the states it was called with.
    """

    def __init__(self, *passes: list[tuple[float, float]]) -> None:
        self.passes = passes
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *arrays: Any, **states: Any) -> Outputs:
        self.calls.append(states)
        number = len(self.calls)
        q_values = np.array(self.passes[number - 1], dtype=np.float32)
        batch = len(q_values)
        logits = np.full((batch, 5), ILLEGAL_LOGIT, dtype=np.float32)
        logits[:, [0, 1, 4]] = (1.0, 0.0, 0.0)
        return {
            "action_type": logits,
            "quantity": np.full(batch, 10.0 * number, dtype=np.float32),
            "value": np.full(batch, number, dtype=np.float32),
            "q_values": q_values,
            "z_H_out": np.full((batch, 2, 3), number, dtype=np.float32),
            "z_L_out": np.full((batch, 2, 2), number, dtype=np.float32),
        }


ON_AND_ON, HALT, TIE = (0.25, 0.75), (0.75, 0.25), (0.5, 0.5)


def segments(script: Script, at_most: int) -> list[Outputs]:
    return run_segments(script, None, None, None, None, at_most)


@pytest.mark.parametrize(
    ("passes", "at_most", "counts"),
    [
        ([[HALT]], 1, [1]),
        ([[ON_AND_ON]], 1, [1]),
        ([[HALT]], 4, [1]),
        ([[ON_AND_ON], [HALT]], 4, [2]),
        ([[TIE], [TIE], [TIE]], 3, [3]),  # equality goes on
        ([[HALT, ON_AND_ON], [ON_AND_ON, HALT]], 4, [1, 2]),
        ([[ON_AND_ON, HALT], [HALT, HALT]], 4, [2, 1]),
        ([[ON_AND_ON, HALT, TIE], [ON_AND_ON, TIE, HALT], [ON_AND_ON] * 3], 3, [3, 1, 2]),
    ],
)
def test_a_row_halts_at_the_first_pass_that_prefers_halting(
    passes: list[list[tuple[float, float]]], at_most: int, counts: list[int]
) -> None:
    script = Script(*passes)
    ran = segments(script, at_most)
    assert len(ran) == len(passes)
    assert segments_of(ran).tolist() == counts


def test_states_are_carried_from_pass_to_pass() -> None:
    script = Script([ON_AND_ON], [ON_AND_ON], [HALT])
    segments(script, 5)
    assert script.calls[0] == {}
    for number, call in enumerate(script.calls[1:], start=1):
        np.testing.assert_array_equal(call["z_H"], np.full((1, 2, 3), number, np.float32))
        np.testing.assert_array_equal(call["z_L"], np.full((1, 2, 2), number, np.float32))


def test_a_decision_comes_from_the_pass_at_which_its_row_halted() -> None:
    passes = segments(Script([HALT, TIE, TIE], [HALT, HALT, TIE], [TIE, HALT, TIE]), 3)
    made = decisions(passes, [ACCOUNTS["flat"]] * 3, "abc", latency_ms=2.0)
    assert [decision.segments for decision in made] == [1, 2, 3]
    assert [decision.value for decision in made] == [1.0, 2.0, 3.0]
    assert [decision.quantity for decision in made] == [10.0, 20.0, 30.0]
    assert [decision.q_values for decision in made] == [HALT, HALT, TIE]
    assert {(decision.model_id, decision.latency_ms) for decision in made} == {("abc", 2.0)}


def test_there_is_an_account_for_every_row() -> None:
    with pytest.raises(ValueError, match="longer"):
        decisions(segments(Script([HALT, HALT]), 1), [ACCOUNTS["flat"]], "abc")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["value", "z_H_out", "z_L_out", "q_values"])
def test_a_row_that_breaks_halts_there_and_leaves_the_others_alone(name: str, value: float) -> None:
    script = Script([TIE, TIE], [TIE, TIE], [TIE, HALT])

    def breaking(*arrays: Any, **states: Any) -> Outputs:
        outputs = script(*arrays, **states)
        if len(script.calls) == 2:
            outputs[name].reshape(2, -1)[0, 0] = value
        return outputs

    passes = run_segments(breaking, None, None, None, None, 3)
    made = decisions(passes, [ACCOUNTS["flat"]] * 2, "abc")
    assert made[0] == hold(Reason.NON_FINITE, "abc", segments=2)
    assert (made[1].reason, made[1].segments, made[1].value) == (Reason.OK, 3, 3.0)
    for state in ("z_H", "z_L"):
        np.testing.assert_array_equal(script.calls[2][state][1], np.float32(2.0))
        assert np.isfinite(script.calls[2][state]).all()
