"""How decisions are executed and positions end, as data: our rules, and those of a host.

Distances and costs are the contract's, `Trading`: these say where and when they are applied.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from types import MappingProxyType
from typing import Final, Literal, get_args

from hrm_runtime.errors import BadInput

Fill = Literal["open", "close"]

AtrOf = Literal["decision", "fill"]

ExitsAt = Literal["close", "level"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of one `Book`.

    A bar's close is held to the levels of a position in this order: the stop, which stays where it
    was put, the target and the trail.

    Attributes:
        fill: of the bar after the decision, its "open", before anything happens at its close; or
            its "close", and then only if no level was reached there.
        atr: of which bar the ATR sets the levels: that of the "decision", or that of the "fill".
        proportional_costs: whether an execution costs `cost_fraction` beside the brokerage.
        trailing: whether there is a trail, as far behind the best close as the stop is from the
            entry price. It never goes back.
        trail_first: whether it follows a close before that is held to the levels, or after.
        target: whether there is one.
        exits_at: the price at which a level that was reached ends a position: the "close" that
            reached it, or the "level" itself, although the close is mostly beyond it.
        closes_capped: whether a decided close is, as an opening is, of the lots decided as far as
            the capital affords them, hence may be of a part or of nothing; else it is of all.
        all_in: lots that mean as many as the capital affords, as do all above.
        ruin: whether a position that has used up the capital is closed.

    Raises:
        BadInput: a text is none of these, a flag no bool, `all_in` no number of 1 or more; or what
            is filled at an open has the `atr` of that bar, which is not known before it closes.
    """

    fill: Fill
    atr: AtrOf
    proportional_costs: bool
    trailing: bool
    trail_first: bool
    target: bool
    exits_at: ExitsAt
    closes_capped: bool
    all_in: float
    ruin: bool

    def __post_init__(self) -> None:
        for name, kind in (("fill", Fill), ("atr", AtrOf), ("exits_at", ExitsAt)):
            self._require(name, get_args(kind))
        for field in fields(self):
            if field.type is bool:
                self._require(field.name, (True, False))
        lots = self.all_in
        if isinstance(lots, bool) or not isinstance(lots, Real) or not lots >= 1:
            raise BadInput(
                f"rules: expected all_in to be a number of lots from 1 on, found {lots!r}; "
                "math.inf if none means all"
            )
        if self.fill == "open" and self.atr == "fill":
            raise BadInput(
                "rules: expected the ATR of a bar that has closed, found atr='fill' with "
                "fill='open', before that bar's ATR is known; set atr='decision' or fill='close'"
            )

    def _require(self, name: str, allowed: tuple[object, ...]) -> None:
        found = getattr(self, name)
        if not any(type(found) is type(one) and found == one for one in allowed):
            raise BadInput(
                f"rules: expected {name} to be {' or '.join(map(repr, allowed))}, found {found!r}"
            )


OURS: Final = Rules(
    fill="open",
    atr="decision",
    proportional_costs=True,
    trailing=True,
    trail_first=False,
    target=False,
    exits_at="close",
    closes_capped=False,
    all_in=math.inf,
    ruin=True,
)
"""Those under which training accounts are made."""

HOST: Final = Rules(
    fill="close",
    atr="fill",
    proportional_costs=False,
    trailing=True,
    trail_first=True,
    target=True,
    exits_at="close",
    closes_capped=True,
    all_in=50.0,
    ruin=False,
)
"""The host's: brokerage alone, and a target beside the trail."""

HOST_OWN_PRICE: Final = replace(HOST, exits_at="level")
"""Of a version of the host that books stop, target and trail at their own price."""

HOST_NO_TARGET: Final = replace(HOST, target=False)
"""Of a version of the host that has no target."""

RULES: Final[Mapping[str, Rules]] = MappingProxyType(
    {
        "ours": OURS,
        "host": HOST,
        "host-own-price": HOST_OWN_PRICE,
        "host-no-target": HOST_NO_TARGET,
    }
)
"""By name."""
