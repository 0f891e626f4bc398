"""The five actions, their ids, and which of them are legal on which side."""

from enum import IntEnum
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

ILLEGAL_LOGIT: Final = -1e4
"""The logit the graph gives an illegal action: exp of it is exactly 0 in float64."""

SAFE_QUANTITY: Final = 1.0
"""The quantity that goes with HOLD."""
