"""Bars: open-time-stamped OHLCV columns that are clean by construction."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from hrm_runtime.errors import BadBars
from hrm_runtime.market.stamps import bad_stamp, dates_to_seconds, moment, not_stamps

Floats = npt.NDArray[np.float64]

Integers = npt.NDArray[np.int64]

PRICES: Final = ("open", "high", "low", "close")

REQUIRED: Final = ("datetime", *PRICES)

STAMPS: Final = ("datetime", "datetime_epoch")
"""What files call the column of stamps: the second, with a host's features in them."""

PRICE_RANGE: Final = (1e-12, 1e12)
"""A price outside is refused as a feed error; inside, no feature can overflow float32."""

ROUNDING: Final = 1e-9
"""Of a price: what a feed's own rounding, or a factor for splits, may have parted."""


class Bar(NamedTuple):
    """One closed bar: opening time in epoch seconds UTC, prices in currency, volume if there is."""

    datetime: int
    open: float
    high: float
    low: float
    close: float
    volume: float | None = None


@dataclass(frozen=True)
class Cleaning:
    """What was mended while reading bars. Everything that cannot be mended is refused instead."""

    duplicates: int = 0
    """Rows dropped because a later row had their stamp and prices."""
    disordered: int = 0
    """Places where a row's stamp was earlier than that of the row before it."""


@dataclass(frozen=True, eq=False)
class Bars:
    """Closed bars of one series, oldest first, one per stamp.

    Construction copies, sorts by stamp and drops duplicates (`cleaning` counts both), then freezes
    the arrays. A high or low that misses the open or close by `ROUNDING` at most is put onto it.
    Sequences of any kind are accepted.

    Attributes:
        datetime: int64 [n], opening time in epoch seconds UTC, strictly increasing.
        open, high, low, close: float64 [n], prices in currency.
        volume: float64 [n], or None where the feed has none. No feature reads it: what is none,
            below 0 or not finite, is NaN, and of duplicates the last one's stays.
        cleaning: what was mended.

    Raises:
        BadBars: columns of different lengths, a value that is not a number, a stamp that is not
            whole epoch seconds, two bars with one stamp and different prices, a price outside
            `PRICE_RANGE`, or a bar whose low or high does not enclose its open and close.
    """

    datetime: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats | None = None
    cleaning: Cleaning = field(default_factory=Cleaning, init=False)

    def __post_init__(self) -> None:
        columns = {name: _numbers(name, getattr(self, name)) for name in REQUIRED}
        if self.volume is not None:
            columns["volume"] = _numbers("volume", self.volume)
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise BadBars(f"bars: expected columns of one length, found {lengths}")

        stamps = _stamps(columns.pop("datetime"))
        values = np.stack(list(columns.values()))  # [4 or 5, n]
        disordered = int(np.count_nonzero(np.diff(stamps) < 0))
        if disordered:
            order = np.argsort(stamps, kind="stable")
            stamps, values = stamps[order], values[:, order]
        repeated = np.diff(stamps) == 0
        if repeated.any():
            _refuse_conflicts(stamps, values, repeated, tuple(columns))
            keep = np.concatenate((~repeated, [True]))
            stamps, values = stamps[keep], values[:, keep]
        _refuse_impossible(stamps, values)
        values[4:][~((values[4:] >= 0) & np.isfinite(values[4:]))] = np.nan

        self._freeze(stamps, dict(zip(columns, values, strict=True)))
        object.__setattr__(self, "cleaning", Cleaning(int(repeated.sum()), disordered))

    def _freeze(self, stamps: Integers, columns: Mapping[str, Floats]) -> None:
        for name, array in {"datetime": stamps, **columns}.items():
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Self:
        """Bars from a mapping of columns (a dict, a data frame): by name, others ignored.

        Raises:
            BadBars: a required column is missing, or as the constructor.
        """
        found = columns.keys() if hasattr(columns, "keys") else getattr(columns, "columns", None)
        if found is None:
            raise BadBars(f"bars: expected a mapping of columns, found {type(columns).__name__}")
        require_columns(found)
        names = [*REQUIRED, "volume"] if "volume" in list(found) else REQUIRED
        return cls(**{name: columns[name] for name in names})

    @classmethod
    def of_one(cls, bar: Bar | Mapping[str, Any]) -> Self:
        """One bar, as `Bar` or a mapping of its values by name.

        Raises:
            BadBars: neither, a value is missing, or as the constructor.
        """
        values = bar._asdict() if isinstance(bar, Bar) else bar
        if not isinstance(values, Mapping):
            raise BadBars(f"bar: expected a Bar or a mapping, found {type(bar).__name__}")
        return cls.of({name: [value] for name, value in values.items() if value is not None})

    def newest(self) -> Bar:
        """The last bar; there must be one."""
        volume = None if self.volume is None else float(self.volume[-1])
        return Bar(
            datetime=int(self.datetime[-1]),
            open=float(self.open[-1]),
            high=float(self.high[-1]),
            low=float(self.low[-1]),
            close=float(self.close[-1]),
            volume=None if volume is None or math.isnan(volume) else volume,
        )

    def __len__(self) -> int:
        return len(self.datetime)

    def __repr__(self) -> str:
        ends = " to ".join(moment(int(self.datetime[end])) for end in (0, -1)[: len(self)])
        return f"Bars({counted(len(self), 'bar')}{', ' * bool(ends)}{ends})"

    def __getitem__(self, span: slice) -> "Bars":
        """A contiguous run of bars, without copying or checking again.

        Raises:
            TypeError: `span` is not a slice.
            ValueError: the slice has a step.
        """
        if not isinstance(span, slice):
            raise TypeError(f"bars: expected a slice, found {type(span).__name__}")
        if span.step not in (None, 1):
            raise ValueError(f"bars: expected a slice without a step, found step {span.step}")
        part = object.__new__(Bars)
        for name in (*REQUIRED, "volume"):
            column = getattr(self, name)
            object.__setattr__(part, name, None if column is None else column[span])
        object.__setattr__(part, "cleaning", Cleaning())
        return part


def counted(count: float, name: str) -> str:
    """So many of them: `1 lot`, `12,345 lots`."""
    return f"{count:,.10g} {name}{'s' * (count != 1)}"


def real_numbers(value: object) -> npt.NDArray[Any]:
    """`value` as an array of numbers that numpy need not interpret.

    Raises:
        TypeError: dates (of whatever unit), text, truth values or complex numbers.
        ValueError: rows of different lengths.
    """
    array = np.asarray(value)
    text = array.dtype.kind == "O" and any(isinstance(item, str | bytes) for item in array.flat)
    if array.dtype.kind not in "iufO" or text:
        raise TypeError(f"found {'text' if text else array.dtype}")
    return array


def require_columns(found: Iterable[str], stamps: Sequence[str] = STAMPS[:1]) -> None:
    """Hold the column names of a file or mapping to those that bars need.

    Args:
        stamps: names of which one must be there, for `datetime`.

    Raises:
        BadBars: naming those that are missing.
    """
    names = list(map(str, found))
    missing = [name for name in PRICES if name not in names]
    if not set(stamps).intersection(names):
        missing = ["datetime", *missing]
    if missing:
        raise BadBars(
            f"bars: expected the columns {', '.join(REQUIRED)}; missing {', '.join(missing)}; "
            f"found {', '.join(names) or 'none'}{'; rename them' if names else ''}"
        )


def columns_in_file(found: Iterable[str]) -> list[str]:
    """The columns of a file that bars are made of, stamps first, `volume` last if there is any.

    Where both of `STAMPS` are there, both are to be read, and must be equal.

    Raises:
        BadBars: as `require_columns`, or one is given twice.
    """
    names = list(found)
    require_columns(names, STAMPS)
    known: list[str] = [name for name in (*STAMPS, *PRICES, "volume") if name in names]
    if twice := [name for name in known if names.count(name) > 1]:
        raise BadBars(
            f"bars: expected each column once, found {', '.join(twice)} more than once; drop or "
            "rename the wrong one"
        )
    return known


def _numbers(name: str, column: object) -> Floats:
    try:
        array = real_numbers(column).astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        dates = f"; convert dates with pandas: {dates_to_seconds(zoned=False)}"
        how = dates if name == "datetime" else ""
        raise BadBars(f"bars: expected numbers in column {name}: {error}{how}") from error
    if array.ndim != 1:
        raise BadBars(f"bars: expected column {name} to have one axis, found {array.ndim}")
    return array


def _stamps(column: Floats) -> Integers:
    if (bad := not_stamps(column)).any():
        where = int(np.argmax(bad))
        raise BadBars(f"bars: {bad_stamp(column[where], f' in row {where}')}")
    return column.astype(np.int64)


def same_prices(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    """Where prices, [4, n] each, are those of one bar: equal but for `ROUNDING`."""
    close = abs(one - other) <= ROUNDING * abs(one)
    same: npt.NDArray[np.bool_] = np.logical_and.reduce(close)
    return same


def _refuse_conflicts(
    stamps: Integers, values: Floats, repeated: npt.NDArray[np.bool_], names: tuple[str, ...]
) -> None:
    """Raise if two rows share a stamp (`repeated[i]`: rows i and i + 1) and differ in a price."""
    differs = repeated & ~same_prices(values[:4, 1:], values[:4, :-1])
    if differs.any():
        where = int(np.argmax(differs))
        first, second = (
            dict(zip(names, row.tolist(), strict=True)) for row in values.T[where : where + 2]
        )
        raise BadBars(
            f"bars: expected one bar per stamp; at {stamps[where]} two differ: {first} and {second}"
        )


def _require(good: npt.NDArray[np.bool_], expected: str, stamps: Integers, values: Floats) -> None:
    if not good.all():
        where = int(np.argmin(good))
        prices = zip(PRICES, values[:4, where].tolist(), strict=True)
        found = ", ".join(f"{name} {value!r}" for name, value in prices)
        raise BadBars(f"bars: expected {expected}; found {found} at {stamps[where]}")


def _refuse_impossible(stamps: Integers, values: Floats) -> None:
    """Refuse what no bar can be; a high or low that rounding alone parts from the others is moved.

    Raises:
        BadBars: a price out of range, or a high or low that does not enclose the others.
    """
    smallest, largest = PRICE_RANGE
    possible = (values[:4] >= smallest) & (values[:4] <= largest)
    expected = f"finite prices between {smallest:g} and {largest:g}"
    _require(np.logical_and.reduce(possible), expected, stamps, values)
    open_, high, low, close = values[:4]
    highest, lowest = np.maximum(open_, close), np.minimum(open_, close)
    np.copyto(high, highest, where=(high < highest) & (highest - high <= ROUNDING * highest))
    np.copyto(low, lowest, where=(low > lowest) & (low - lowest <= ROUNDING * lowest))
    _require((low <= lowest) & (high >= highest), "low <= open, close <= high", stamps, values)
