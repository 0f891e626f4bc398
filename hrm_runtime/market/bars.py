"""Bars: open-time-stamped OHLCV columns that are clean by construction, and their readers."""

import csv
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
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

_FINER: Final = (
    (10**14, "milliseconds", 3),
    (10**17, "microseconds", 6),
    (10**20, "nanoseconds", 9),
)
"""Below which stamps beyond are in what, of which so many decimals make a second."""

_DATE: Final = re.compile(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}")
_ZONED: Final = re.compile(r"(Z|[+-]\d{2}:?\d{2})\s*$")

TO_SECONDS: Final = ".dt.as_unit('s').astype('int64')"
"""Makes epoch seconds of a pandas column of dates that know their zone."""
LOCALISED: Final = ".dt.tz_localize('Asia/Kolkata')"
"""Tells a pandas column of dates the zone they are in."""


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
            not a number or a stamp not in seconds (the message names line and column), or as
            `Bars`. Parquet is refused with what reads it: `hrm_train.data.parquet`.
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        raise BadBars(
            f"{path}: expected CSV; Parquet is read by hrm_train.data.parquet, which needs polars: "
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
"""What this package reads, by suffix. `hrm_train.data.parquet.READERS` also reads Parquet."""


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
            f"found {', '.join(names) or 'none'}{'; rename them' if names else ''}"
        )


def _files(path: Path) -> list[Path]:
    """Those in a folder that are called as bars are, sorted; else the path itself."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
        inside = sorted(path.iterdir())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadBars(
            f"{path}: expected a bars file or a folder of them, found nothing there"
        ) from error
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
    _require_header(header)
    known = [name for name in (*REQUIRED, "volume") if name in header]
    places = [header.index(name) for name in known]
    rows, lines = [], []
    for cells in reader:
        if cells:
            rows.append(_numbers_of_line(reader.line_num, cells, header, places))
            lines.append(reader.line_num)
    table = np.array(rows).reshape(len(rows), len(known))
    _require_finite(table, lines, known)
    stamps = table[:, known.index("datetime")]
    if (bad := _not_stamps(stamps)).any():
        where = int(np.argmax(bad))
        raise BadBars(f"line {lines[where]}, column datetime: {_bad_stamp(stamps[where])}")
    return dict(zip(known, table.T, strict=True))


def _require_header(header: list[str]) -> None:
    """Refuse a first line that does not name columns by what it is instead."""
    columns = ",".join(REQUIRED)
    if not any(header):
        raise BadBars(
            f"expected a header such as {columns} and a line for each bar, found an empty "
            "file or first line"
        )
    if len(header) == 1 and (separator := re.search("[;\t|]", header[0])):
        raise BadBars(
            f"line 1: expected columns separated by commas, found {separator[0]!r}; convert it "
            f"with pandas: read_csv(FILE, sep={separator[0]!r}).to_csv(FILE, index=False), and "
            "decimal=',' in read_csv where numbers have a comma"
        )
    if all(_is_number(cell) or _DATE.match(cell) for cell in header if cell):
        raise BadBars(
            f"line 1: expected a header, found the numbers of a bar; write {columns}, or what "
            "its columns are, into a line before it"
        )
    require_columns(header)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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


def _numbers_of_line(
    line: int, cells: list[str], header: list[str], places: list[int]
) -> list[float]:
    if len(cells) <= max(places) or any(cells[len(header) :]):
        raise BadBars(
            f"line {line}: expected {len(header)} cells as in the header, found {len(cells)}"
            + ("; write numbers with a decimal point" if len(cells) > len(header) else "")
        )
    try:
        return [float(cells[place]) for place in places]
    except ValueError:
        place = next(place for place in places if not _is_number(cells[place]))
        explained = _bad_cell(header[place], cells[place])
        raise BadBars(f"line {line}, column {header[place]}: {explained}") from None


def _bad_cell(name: str, cell: str) -> str:
    """What was expected, what was found, and what to do."""
    if not cell.strip():
        return "expected a number, found an empty cell; fill it or drop the line"
    if re.fullmatch(r"\s*[+-]?[\d.]*,\d*\s*", cell):
        return f"expected a number with a decimal point, found {cell!r}; write it with one"
    if name != "datetime":
        return f"expected a number, found {cell!r}; mend it or drop the line"
    return f"expected epoch seconds (UTC), found {cell!r}" + (
        f"; convert it with pandas: {dates_to_seconds(_ZONED.search(cell) is not None)}"
        if _DATE.match(cell)
        else "; mend it or drop the line"
    )


def dates_to_seconds(zoned: bool) -> str:
    """The line of pandas that makes epoch seconds of a column of dates in a frame.

    Args:
        zoned: whether the dates say their zone; else it is to be said.
    """
    column = "frame['datetime']"
    if zoned:
        return f"{column} = pandas.to_datetime({column}, utc=True){TO_SECONDS}"
    return (
        f"{column} = pandas.to_datetime({column}){LOCALISED}{TO_SECONDS}, with the zone of the "
        "market's clock"
    )


def _require_finite(table: Floats, lines: list[int], names: Sequence[str]) -> None:
    bad = ~np.isfinite(table)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise BadBars(
            f"line {lines[row]}, column {names[column]}: expected a finite number, found "
            f"{table[row, column]:g}; fill it or drop the line"
        )


def _stamps(column: Floats) -> Integers:
    if (bad := _not_stamps(column)).any():
        where = int(np.argmax(bad))
        raise BadBars(f"bars: {_bad_stamp(column[where], f' in row {where}')}")
    return column.astype(np.int64)


def _not_stamps(column: Floats) -> npt.NDArray[np.bool_]:
    """Where a column holds something else than whole epoch seconds."""
    bad: npt.NDArray[np.bool_] = ~(
        (column >= 0) & (column < LATEST_STAMP) & (column == np.floor(column))
    )
    return bad


def _bad_stamp(stamp: float, where: str = "") -> str:
    """What was expected, what was found, and what to do."""
    unit = next((f"{name}: divide by 10**{n}" for most, name, n in _FINER if stamp < most), "")
    return (
        f"expected datetime in whole epoch seconds (UTC) below {LATEST_STAMP}; found "
        f"{stamp:.15g}{where}"
        + (f", which looks like {unit}" if unit and stamp >= LATEST_STAMP else "")
    )


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
