"""What a host observes, flat and in its own order: what it shows, or why it cannot be read."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.errors import BadInput
from hrm_runtime.market.bars import PRICES, Bar, counted, real_numbers
from hrm_runtime.market.columns import FEATURES
from hrm_runtime.market.stamps import moment

ACCOUNT_VALUES: Final = (
    "capital",
    "position_quantity",
    "entry_price",
    "unrealized_pnl",
    "is_position_open",
    "distance_to_trail",
)
"""The end of an observation, in order."""

STAMP: Final = "datetime_epoch"
"""What the host calls the opening time of a bar."""

HOST_COLUMNS: Final = (*PRICES, STAMP, *FEATURES[:48])
"""The columns of the host's training environment."""

_LARGEST_SCORE: Final = 5.0
"""The host clips its z-scores there."""

_TICK: Final = 1e-3
"""Of a price: no tick counts for more, since facts that nobody declared have one of 0.05."""

_FLOAT32: Final = 2.0**-24
"""Of a value: at least what rounding it to float32 may have changed."""


class Observations:
    """The layout of a host's observations: `lookback` bars x `columns`, then six account values.

    Args:
        columns: in the host's order; the four prices must be among them.
        lookback: bars in an observation, oldest first.

    Raises:
        BadInput: columns without a price or with a name twice, or a count below 1.
    """

    def __init__(self, columns: Iterable[str], lookback: int) -> None:
        columns = tuple(columns)
        if missing := [name for name in PRICES if name not in columns]:
            raise BadInput(
                f"columns: expected {', '.join(PRICES)} among them, which tell what bar an "
                f"observation shows; missing {', '.join(missing)}: have the host observe prices, "
                "or give the callables bars and account"
            )
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise BadInput(f"columns: expected each name once, found {', '.join(repeated)} again")
        require_count("lookback", lookback)
        self._columns = columns
        self._lookback = lookback

    def __repr__(self) -> str:
        return f"{self._lookback} bars x {len(self._columns)} columns"

    def read(self, observation: npt.ArrayLike) -> tuple[dict[str, float], dict[str, Any]]:
        """What it shows of its newest bar, by column, and of the account.

        Raises:
            BadInput: no numbers, another shape, or a bar that is not finite.
        """
        try:
            values = real_numbers(observation).astype(np.float64)
        except Exception as error:  # anything may be passed, and raise anything
            raise BadInput(
                f"observation: expected numbers, found {type(observation).__name__}: {error}"
            ) from error
        split = self._lookback * len(self._columns)
        if values.shape != (split + len(ACCOUNT_VALUES),):
            raise BadInput(self._other_shape(values.shape))
        market, account = values[:split].reshape(self._lookback, -1), values[split:]
        if not np.isfinite(market).all():
            bar, column = np.argwhere(~np.isfinite(market))[0].tolist()
            raise BadInput(
                f"observation: expected finite numbers, found {market[bar, column]} in column "
                f"{self._columns[column]} of bar {bar + 1} of {self._lookback}"
            )
        newest = dict(zip(self._columns, market[-1].tolist(), strict=True))
        return newest, dict(zip(ACCOUNT_VALUES, account.tolist(), strict=True))

    def _other_shape(self, shape: tuple[int, ...]) -> str:
        """What is wrong with an observation of another shape, naming columns."""
        columns, lookback, rest = len(self._columns), self._lookback, len(ACCOUNT_VALUES)
        told = (
            f"observation: expected {lookback * columns + rest} values, {lookback} bars x "
            f"{columns} columns and {rest} of the account; found "
        )
        if len(shape) != 1:
            return f"{told}shape {list(shape)}: flatten it"
        told += str(shape[0])
        wide, uneven = divmod(shape[0] - rest, lookback)
        if wide > columns and not uneven:
            absent = [name for name in (*HOST_COLUMNS, "volume") if name not in self._columns]
            named = _guess(wide - columns, absent, ["volume"], absent)
            return f"{told}, as with {named} more: name all columns of the host's frame in order"
        if wide > 0 and not uneven:
            own = [name for name in self._columns if name not in HOST_COLUMNS]
            likely = own, PRICES, [STAMP], [*PRICES, STAMP]
            named = _guess(columns - wide, self._columns, *likely)
            return (
                f"{told}, as with {named} fewer, or with the end cut off, where the newest bars "
                "and the account stand"
            )
        bars, uneven = divmod(shape[0] - rest, columns)
        if bars > 0 and not uneven:
            return f"{told}, as with {bars} bars: give lookback={bars}"
        return (
            f"{told}, which is no whole number of columns: something is cut off; at the end stand "
            f"{', '.join(ACCOUNT_VALUES)}"
        )


def require_count(name: str, count: int) -> None:
    """Hold a setting to a whole number from 1.

    Raises:
        BadInput: it is none.
    """
    if type(count) is not int or count < 1:
        raise BadInput(f"{name}: expected a whole number from 1, found {count!r}")


def require_shown(newest: Bar, shown: Mapping[str, float], tick: float) -> None:
    """Hold the last bar of an observation to the engine's.

    Prices may differ by half a `tick`, at most by a thousandth, and by what float32 rounds; a stamp
    by that alone.

    Raises:
        BadInput: it shows another bar, or prices that are normalised.
    """
    expected = {name: getattr(newest, name) for name in PRICES}
    allowed = {name: min(tick / 2, _TICK * price) for name, price in expected.items()}
    if STAMP in shown:
        expected[STAMP] = newest.datetime
        allowed[STAMP] = 0.0
    found = {name: shown[name] for name in expected}
    different = [
        name
        for name, value in found.items()
        if abs(value - expected[name]) > allowed[name] + _FLOAT32 * abs(value)
    ]
    if not different:
        return
    told = (
        f"observation: expected the newest bar of the engine, {moment(newest.datetime)}, with "
        f"{_listed(expected)}; found another {', '.join(different)} in {_listed(found)}"
    )
    if max(map(abs, found.values())) <= _LARGEST_SCORE < max(expected.values()):
        raise BadInput(
            f"{told}: it looks normalised; give raw observations, or the callables bars and account"
        )
    raise BadInput(
        f"{told}: feed each bar before acting on it, correct one that changed since, and give "
        "columns in order"
    )


def _guess(count: int, possible: Collection[str], *likely: Collection[str]) -> str:
    """So many columns, and which they may be: the first likely group of that size."""
    groups = (group for group in likely if len(group) == count and set(group) <= set(possible))
    names = next(groups, ())
    told = counted(count, "column")
    return f"{told} ({', '.join(names)}?)" if names else told


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.10g}" for name, value in values.items())
