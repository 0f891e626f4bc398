"""Bars: open-time-stamped OHLCV columns that are clean by construction, and their readers."""

import csv
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from hrm_runtime.errors import BadBars

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PRICES: Final = ("open", "high", "low", "close")
REQUIRED: Final = ("datetime", *PRICES)

PRICE_RANGE: Final = (1e-12, 1e12)
"""A price outside is refused as a feed error; inside, no feature can overflow float32."""

LATEST_STAMP: Final = 10**11
"""A stamp beyond (the year 5138) is milliseconds or worse, not epoch seconds."""

_ESCAPED: Final = re.compile("(?:%[0-9A-Fa-f]{2})+")
_ESCAPES: Final = {ord(character): f"%{ord(character):02X}" for character in '%/\\:*?"<>|'}
"""What some system allows in no file name, and the sign that escapes it."""
_UNDERSCORE: Final = {ord("_"): "%5F"}
"""The last one ends the instrument."""


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
    """Rows dropped because another row was equal to them in every column."""
    disordered: int = 0
    """Places where a row's stamp was earlier than that of the row before it."""


@dataclass(frozen=True, eq=False)
class Bars:
    """Closed bars of one series, oldest first, one per stamp.

    Construction copies, sorts by stamp and drops exact duplicates (`cleaning` counts both), then
    freezes the arrays. Sequences of any kind are accepted.

    Attributes:
        datetime: int64 [n], opening time in epoch seconds UTC, strictly increasing.
        open, high, low, close: float64 [n], prices in currency.
        volume: float64 [n], or None where the feed has none. No feature reads it.
        cleaning: what was mended.

    Raises:
        BadBars: columns of different lengths, a value that is not a number, a stamp that is not
            whole epoch seconds, two different bars with one stamp, a price outside `PRICE_RANGE`,
            or a bar whose low or high does not enclose its open and close.
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
            keep = np.concatenate(([True], ~repeated))
            stamps, values = stamps[keep], values[:, keep]
        _refuse_impossible(stamps, values)

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
        return Bar(
            datetime=int(self.datetime[-1]),
            open=float(self.open[-1]),
            high=float(self.high[-1]),
            low=float(self.low[-1]),
            close=float(self.close[-1]),
            volume=None if self.volume is None else float(self.volume[-1]),
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


def read_csv(path: str | Path) -> Bars:
    """Bars from a CSV file with a header; columns are found by name, others are ignored.

    Raises:
        BadBars: the file is missing, unreadable or not CSV text, a column is missing, a cell is
            not a number (the message names the line), or as `Bars`. Parquet is refused with what
            reads it: `hrm_train.parquet`.
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        raise BadBars(
            f"{path}: expected CSV; Parquet is read by hrm_train.parquet, which needs polars: "
            "pip install '.[train]', or convert the file"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            columns = _columns(file)
        return Bars.of(columns)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadBars(f"{path}: expected a readable CSV file: {error}") from error
    except BadBars as error:
        raise BadBars(f"{path}: {error}") from error


def write_csv(bars: Bars, path: str | Path) -> None:
    """Write bars as `read_csv` reads them back, equal to the last bit."""
    names = [name for name in (*REQUIRED, "volume") if getattr(bars, name) is not None]
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*(getattr(bars, name).tolist() for name in names), strict=True))


Reader = Callable[[Path], Bars]

SUFFIXES: Final = (".csv", ".parquet")
"""What files of bars are called."""

READERS: Final[Mapping[str, Reader]] = {".csv": read_csv}
"""What this package reads, by suffix. `hrm_train.parquet.READERS` also reads Parquet."""


def read_bars(path: str | Path, readers: Mapping[str, Reader] = READERS) -> Bars:
    """Bars from a file by the reader of its suffix; as CSV where it has none.

    Raises:
        BadBars: as the reader.
    """
    path = Path(path)
    return readers.get(path.suffix.lower(), read_csv)(path)


def series_name(path: str | Path) -> tuple[str, str]:
    """(instrument, timeframe) from a bars file named `{SYMBOL}_{TIMEFRAME}.csv`.

    What no file name can hold is written as in URLs: `EUR%2FUSD_60.csv` is EUR/USD at 60. A percent
    sign that begins no UTF-8 character written so stands for itself.

    Raises:
        BadBars: the name has no underscore with something on both sides, or as `require_name`.
    """
    symbol, _, timeframe = Path(path).stem.rpartition("_")
    if not symbol or not timeframe:
        raise BadBars(
            f"{path}: expected a file named SYMBOL_TIMEFRAME.csv, for example Nifty_5.csv; rename "
            "it, or give both --instrument and --timeframe to predict, trace or backtest"
        )
    instrument, timeframe = (_ESCAPED.sub(_unescaped, part) for part in (symbol, timeframe))
    require_name(instrument, f"{path}: instrument")
    require_name(timeframe, f"{path}: timeframe")
    return instrument, timeframe


def series_file(instrument: str, timeframe: str) -> str:
    """What a CSV file of this series is called, so that `series_name` gives it back.

    Raises:
        BadBars: as `require_name`.
    """
    require_name(instrument, "instrument")
    require_name(timeframe, "timeframe")
    return f"{instrument.translate(_ESCAPES)}_{timeframe.translate(_ESCAPES | _UNDERSCORE)}.csv"


def require_name(name: str, where: str) -> None:
    """Hold the name of an instrument or a timeframe to what can be read and typed.

    Raises:
        BadBars: it is blank, or a character cannot be printed; `where` begins the message.
    """
    if not name.strip() or not name.isprintable():
        raise BadBars(f"{where}: expected a name of printable characters, found {name!r}")


def listed(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """One path or several, as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def series_files(
    paths: str | Path | Iterable[str | Path],
    *,
    instrument: str | None = None,
    timeframe: str | None = None,
) -> dict[tuple[str, str], Path]:
    """The file of every series in `paths` by (instrument, timeframe), sorted. None is read.

    Args:
        paths: files, or folders of CSV and Parquet files.
        instrument, timeframe: of the one file that there must be then, instead of what its name
            says.

    Raises:
        BadBars: a path is missing, a folder holds neither, two files hold one series, there are
            several for one name given, or as `series_name` and `require_name`.
    """
    found = [file for path in listed(paths) for file in _files(path)]
    names = {"instrument": instrument, "timeframe": timeframe}
    given = [what for what, name in names.items() if name is not None]
    if given and len(found) != 1:
        raise BadBars(
            f"{' and '.join(given)}: expected to name one bars file, found {_some(found)}; give "
            "one file, or none of these names and files that are called SYMBOL_TIMEFRAME.csv"
        )
    files: dict[tuple[str, str], Path] = {}
    for file in found:
        name = _named(file, instrument, timeframe)
        if name in files:
            raise BadBars(f"{file}: expected one file per series, {files[name]} holds it too")
        files[name] = file
    return dict(sorted(files.items()))


def read_series(
    paths: str | Path | Iterable[str | Path],
    readers: Mapping[str, Reader] = READERS,
    *,
    instrument: str | None = None,
    timeframe: str | None = None,
) -> dict[tuple[str, str], Bars]:
    """Every series in `paths` by (instrument, timeframe), sorted.

    Args:
        readers: as `read_bars`.
        Others: as `series_files`.

    Raises:
        BadBars: as `series_files` and the reader.
    """
    files = series_files(paths, instrument=instrument, timeframe=timeframe)
    return {name: read_bars(file, readers) for name, file in files.items()}


@dataclass(frozen=True)
class SkippedSeries:
    """A series, of several, that nothing could be done with, and why."""

    instrument: str
    timeframe: str
    reason: str

    def __str__(self) -> str:
        return f"{self.instrument}_{self.timeframe}: {self.reason}"


def none_left(skipped: Iterable[SkippedSeries]) -> str:
    """What to tell where every series was skipped."""
    named = "; ".join(map(str, skipped))
    return f"expected at least one series that something can be done with, found none: {named}"


def moment(stamp: int) -> str:
    """Epoch seconds, to be read."""
    return f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M} UTC"


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


def require_columns(found: Iterable[str]) -> None:
    """Hold the column names of a file or mapping to those that bars need.

    Raises:
        BadBars: naming those that are missing.
    """
    names = list(map(str, found))
    if missing := [name for name in REQUIRED if name not in names]:
        raise BadBars(
            f"bars: expected the columns {', '.join(REQUIRED)}; missing {', '.join(missing)}; "
            f"found {', '.join(names) or 'none'}"
        )


def _files(path: Path) -> list[Path]:
    """Those in a folder that are called as bars are, sorted; else the path itself."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
        inside = sorted(path.iterdir())
    except OSError as error:
        raise BadBars(f"{path}: expected a readable file or folder of bars: {error}") from error
    files = [file for file in inside if file.suffix.lower() in SUFFIXES]
    if not files:
        raise BadBars(
            f"{path}: expected CSV or Parquet files in this folder, found {_some(inside)}"
        )
    return files


def _some(files: list[Path]) -> str:
    """A few of their names, and how many more there are."""
    names = [file.name for file in files[:3]]
    more = [f"{len(files) - 3} more"] if len(files) > 3 else []
    return ", ".join(names + more) or "none"


def _named(file: Path, instrument: str | None, timeframe: str | None) -> tuple[str, str]:
    """What a file holds: as given, or as its name says."""
    for what, name in (("instrument", instrument), ("timeframe", timeframe)):
        if name is not None:
            require_name(name, what)
    if instrument is not None and timeframe is not None:
        return instrument, timeframe
    symbol, frame = series_name(file)
    return instrument or symbol, timeframe or frame


def _unescaped(escapes: re.Match[str]) -> str:
    try:
        return bytes.fromhex(escapes[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return escapes[0]


def _columns(file: Iterable[str]) -> dict[str, Floats]:
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    require_columns(header)
    known = [name for name in (*REQUIRED, "volume") if name in header]
    places = [header.index(name) for name in known]
    lines = [_numbers_of_line(reader.line_num, cells, places) for cells in reader if cells]
    table = np.array(lines).reshape(len(lines), len(known)).T
    return dict(zip(known, table, strict=True))


def _numbers(name: str, column: object) -> Floats:
    try:
        array = real_numbers(column).astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadBars(f"bars: expected numbers in column {name}: {error}") from error
    if array.ndim != 1:
        raise BadBars(f"bars: expected column {name} to have one axis, found {array.ndim}")
    return array


def _numbers_of_line(line: int, cells: list[str], places: list[int]) -> list[float]:
    try:
        return [float(cells[place]) for place in places]
    except (IndexError, ValueError) as error:
        raise BadBars(f"line {line}: expected a number in every column: {error}") from error


def _stamps(column: Floats) -> Integers:
    bad = ~((column >= 0) & (column < LATEST_STAMP) & (column == np.floor(column)))
    if bad.any():
        where = int(np.argmax(bad))
        raise BadBars(
            f"bars: expected datetime in whole epoch seconds (UTC) below {LATEST_STAMP}; "
            f"found {column[where]:.15g} in row {where}"
        )
    return column.astype(np.int64)


def _refuse_conflicts(
    stamps: Integers, values: Floats, repeated: npt.NDArray[np.bool_], names: tuple[str, ...]
) -> None:
    """Raise if two rows share a stamp (`repeated[i]`: rows i and i + 1) and differ elsewhere."""
    differs = repeated & (values[:, 1:] != values[:, :-1]).any(axis=0)
    if differs.any():
        where = int(np.argmax(differs))
        first, second = (
            dict(zip(names, row.tolist(), strict=True)) for row in values.T[where : where + 2]
        )
        raise BadBars(
            f"bars: expected one bar per stamp; at {stamps[where]} two differ: {first} and {second}"
        )


def _refuse_impossible(stamps: Integers, values: Floats) -> None:
    open_, high, low, close = values[:4]
    smallest, largest = PRICE_RANGE
    checks = (
        (
            ((values[:4] >= smallest) & (values[:4] <= largest)).all(axis=0),
            f"expected finite prices between {smallest:g} and {largest:g}",
        ),
        (
            (low <= np.minimum(open_, close)) & (high >= np.maximum(open_, close)),
            "expected low <= open, close <= high",
        ),
        (
            (values[4:] >= 0).all(axis=0) & np.isfinite(values[4:]).all(axis=0),
            "expected volume >= 0",
        ),
    )
    for good, expected in checks:
        if not good.all():
            where = int(np.argmin(good))
            found = ", ".join(f"{v:g}" for v in values[:, where])
            raise BadBars(f"bars: {expected}; found {found} at {stamps[where]}")
