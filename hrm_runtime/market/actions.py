"""The five actions, their ids, and which of them are legal on which side."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final


class Action(IntEnum):
    """What to do at the next bar's open. The ids are the trading environment's."""

    BUY_LONG = 0
    SELL_SHORT = 1
    CLOSE_LONG = 2
    CLOSE_SHORT = 3
    HOLD = 4


class Side(IntEnum):
    """The sign of the position."""

    SHORT = -1
    FLAT = 0
    LONG = 1


LEGAL: Final[dict[Side, tuple[Action, ...]]] = {
    Side.FLAT: (Action.BUY_LONG, Action.SELL_SHORT, Action.HOLD),
    Side.LONG: (Action.CLOSE_LONG, Action.HOLD),
    Side.SHORT: (Action.CLOSE_SHORT, Action.HOLD),
}

OPENINGS: Final = (Action.BUY_LONG, Action.SELL_SHORT)
"""Those whose lots come from the network."""

ILLEGAL_LOGIT: Final = -1e4
"""The logit the graph gives an illegal action: exp of it is exactly 0 in float64."""

SAFE_QUANTITY: Final = 1.0
"""The quantity that goes with HOLD."""

Vocabulary = Mapping[Action, int]
"""The ids by which a host calls the five actions."""

CANONICAL: Final[Vocabulary] = MappingProxyType({action: int(action) for action in Action})
"""Of the trading environment, its engine, trainers and settings."""

LIVE_SERVICE: Final[Vocabulary] = MappingProxyType(
    {
        Action.CLOSE_LONG: 0,  # STRONG_SELL there, which opens nothing
        Action.SELL_SHORT: 1,  # SELL
        Action.HOLD: 2,
        Action.BUY_LONG: 3,  # BUY
        Action.CLOSE_SHORT: 4,  # STRONG_BUY, which opens nothing
    }
)
"""Of the live service, which opens orders on 1 and 3 alone."""


def action_of(number: int, vocabulary: Vocabulary) -> Action:
    """The action that a host calls `number`.

    Raises:
        ValueError: no action is called so.
    """
    for action, known in vocabulary.items():
        if known == number:
            return action
    raise ValueError(f"action: expected one of {sorted(vocabulary.values())}, found {number!r}")
