import math

import pytest

from hrm_runtime import Action
from hrm_runtime.actions import ILLEGAL_LOGIT, LEGAL, SAFE_QUANTITY, Side


def test_the_ids_are_those_of_the_trading_environment() -> None:
    assert {action.name: action.value for action in Action} == {
        "BUY_LONG": 0,
        "SELL_SHORT": 1,
        "CLOSE_LONG": 2,
        "CLOSE_SHORT": 3,
        "HOLD": 4,
    }


def test_a_side_is_the_sign_of_the_position() -> None:
    assert {side.name: side.value for side in Side} == {"SHORT": -1, "FLAT": 0, "LONG": 1}


@pytest.mark.parametrize(
    ("side", "ids"), [(Side.FLAT, (0, 1, 4)), (Side.LONG, (2, 4)), (Side.SHORT, (3, 4))]
)
def test_a_side_opens_when_flat_and_closes_what_it_holds(side: Side, ids: tuple[int, ...]) -> None:
    assert LEGAL[side] == ids


def test_an_illegal_logit_leaves_no_probability_beside_any_network_logit() -> None:
    assert math.exp(ILLEGAL_LOGIT - -1000.0) == 0.0


def test_the_safe_quantity_is_one_lot() -> None:
    assert SAFE_QUANTITY == 1.0
