"""Series: which files hold them, what these are called, and which reader takes which."""

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.csv_files import read_csv
from hrm_runtime.market.names import timeframe_of

Reader = Callable[[Path], Bars]

SUFFIXES: Final = (".csv", ".parquet")
"""What files of bars are called."""

READERS: Final[Mapping[str, Reader]] = {".csv": read_csv}
"""What this package reads, by suffix. `hrm_train.parquet.READERS` also reads Parquet."""

FEATURES: Final = "features_"
"""What a host puts before the name of a file of bars that it has computed features into."""

_ESCAPED: Final = re.compile("(?:%[0-9A-Fa-f]{2})+")

_ESCAPES: Final = {ord(character): f"%{ord(character):02X}" for character in '%/\\:*?"<>|'}
"""What some system allows in no file name, and the sign that escapes it."""

_UNDERSCORE: Final = {ord("_"): "%5F"}
"""The last one ends the instrument."""


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


def read_bars(path: str | Path, readers: Mapping[str, Reader] = READERS) -> Bars:
    """Bars from a file by the reader of its suffix; as CSV where it has none.

    Raises:
        BadBars: as the reader.
    """
    path = Path(path)
    return readers.get(path.suffix.lower(), read_csv)(path)


def read_series(
    paths: str | Path | Iterable[str | Path],
    readers: Mapping[str, Reader] = READERS,
    *,
    instrument: str | None = None,
    timeframe: str | None = None,
) -> dict[tuple[str, str], Bars]:
    """Every series in `paths` by (instrument, timeframe), sorted.

    Paths and names are taken as by `series_files`.

    Args:
        readers: as `read_bars`.

    Raises:
        BadBars: as `series_files` and the reader.
    """
    files = series_files(paths, instrument=instrument, timeframe=timeframe)
    return {name: read_bars(file, readers) for name, file in files.items()}


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
        BadBars: a path is missing, a folder holds neither, two files hold one series (`X_5` and
            `X_5m` are one), there are several for one name given, or as `series_name` and
            `require_name`.
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
    meant: dict[tuple[str, str], Path] = {}
    for file in found:
        symbol, frame = _named(file, instrument, timeframe)
        name = symbol, timeframe_of(frame, {})
        if name in meant:
            raise BadBars(f"{file}: expected one file per series, {meant[name]} holds it too")
        files[symbol, frame] = meant[name] = file
    return dict(sorted(files.items()))


def series_name(path: str | Path) -> tuple[str, str]:
    """(instrument, timeframe) from a bars file named `{SYMBOL}_{TIMEFRAME}.csv`.

    `features_` before the symbol, as a host names files with features beside the bars, is no part
    of it.
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
    symbol = symbol.removeprefix(FEATURES) or symbol
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
    symbol = instrument.translate(_ESCAPES)
    if symbol.startswith(FEATURES):  # a name that begins so keeps it
        symbol = f"%{ord(symbol[0]):02X}{symbol[1:]}"
    return f"{symbol}_{timeframe.translate(_ESCAPES | _UNDERSCORE)}.csv"


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
