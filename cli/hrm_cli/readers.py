"""Which files of bars the command line reads, and how it takes one."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from hrm_runtime import BadInput, Bars
from hrm_runtime.market import series
from hrm_runtime.market.series import Reader


def readers() -> Mapping[str, Reader]:
    """CSV, and Parquet where polars is installed."""
    if find_spec("polars") is None:
        return series.READERS
    from hrm_train.data import parquet

    return parquet.READERS


def one_series(
    data: Iterable[Path], instrument: str | None, timeframe: str | None
) -> tuple[str, str, Bars]:
    """The instrument, the timeframe and the bars of the one file in `data`.

    Raises:
        BadInput: there are more, or none.
        BadBars: as `hrm_runtime.market.series.series_files` and the reader.
    """
    files = series.series_files(data, instrument=instrument, timeframe=timeframe)
    if len(files) != 1:
        given = ", ".join(map(str, data))
        raise BadInput(f"{given}: expected one bars file, found {len(files)}")
    ((name, file),) = files.items()
    return *name, series.read_bars(file, readers())
