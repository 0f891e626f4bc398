import math
from typing import Any

import pytest

from hrm_runtime import Action
from hrm_runtime.market.actions import (
    CANONICAL,
    ILLEGAL_LOGIT,
    LEGAL,
    LIVE_SERVICE,
    SAFE_QUANTITY,
    Side,
    Vocabulary,
    action_of,
)


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


# what hosts call them

NUMBERS = [
    (CANONICAL, Action.BUY_LONG, 0),
    (CANONICAL, Action.SELL_SHORT, 1),
    (CANONICAL, Action.CLOSE_LONG, 2),
    (CANONICAL, Action.CLOSE_SHORT, 3),
    (CANONICAL, Action.HOLD, 4),
    (LIVE_SERVICE, Action.BUY_LONG, 3),
    (LIVE_SERVICE, Action.SELL_SHORT, 1),
    (LIVE_SERVICE, Action.CLOSE_LONG, 0),
    (LIVE_SERVICE, Action.CLOSE_SHORT, 4),
    (LIVE_SERVICE, Action.HOLD, 2),
]
VOCABULARIES = pytest.mark.parametrize(
    "vocabulary", [CANONICAL, LIVE_SERVICE], ids=["canonical", "live service"]
)


@pytest.mark.parametrize(("vocabulary", "action", "number"), NUMBERS)
def test_a_host_has_its_number_for_each_action(
    vocabulary: Vocabulary, action: Action, number: int
) -> None:
    assert vocabulary[action] == number


@pytest.mark.parametrize(("vocabulary", "action", "number"), NUMBERS)
def test_a_host_s_number_is_the_action_it_means(
    vocabulary: Vocabulary, action: Action, number: int
) -> None:
    assert action_of(number, vocabulary) is action


@VOCABULARIES
def test_a_vocabulary_has_a_number_of_its_own_for_each_action(vocabulary: Vocabulary) -> None:
    assert set(vocabulary) == set(Action)
    assert sorted(vocabulary.values()) == [0, 1, 2, 3, 4]


def test_the_live_service_opens_orders_on_1_and_3_alone() -> None:
    openings = {Action.BUY_LONG, Action.SELL_SHORT}
    assert {action_of(number, LIVE_SERVICE) for number in (1, 3)} == openings


@VOCABULARIES
def test_a_vocabulary_cannot_be_written_to(vocabulary: Any) -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        vocabulary[Action.HOLD] = 0


@pytest.mark.parametrize("number", [5, -1, None, "4", 1.5])
@VOCABULARIES
def test_a_number_that_no_action_has_is_refused(vocabulary: Vocabulary, number: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^action: expected one of \[0, 1, 2, 3, 4\], found {number!r}$"
    ):
        action_of(number, vocabulary)
