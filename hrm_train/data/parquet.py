"""Bars from Parquet files, where polars is."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hrm_runtime.errors import BadBars
from hrm_runtime.market import series
from hrm_runtime.market.bars import STAMPS, Bars, columns_in_file
from hrm_runtime.market.series import Reader

if TYPE_CHECKING:
    import polars


def read_parquet(path: str | Path) -> Bars:
    """Bars from a Parquet file; columns are found by name, others are ignored.

    A file that a host has computed features into calls its stamps `datetime_epoch`.

    Raises:
        BadBars: the file is missing, unreadable or not Parquet, a column is missing or not of
            numbers, stamps are not of integers, a value is null (the message names the row), two
            columns of stamps differ, or as `Bars`.
    """
    import polars  # training from tensors needs none

    path = Path(path)
    try:
        content = path.read_bytes()  # polars would take some names for patterns or addresses
        found = polars.read_parquet_schema(BytesIO(content))
        frame = polars.read_parquet(BytesIO(content), columns=columns_in_file(found))
        _require_numbers(frame)
        frame = _with_one_stamp(frame)
        return Bars.of(frame.cast(polars.Float64).to_dict(as_series=True))
    except (OSError, polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        raise BadBars(f"{path}: expected a readable Parquet file: {error}") from error
    except BadBars as error:
        raise BadBars(f"{path}: {error}") from error


READERS: Final[Mapping[str, Reader]] = {**series.READERS, ".parquet": read_parquet}
"""What training reads, by suffix."""


def _require_numbers(frame: "polars.DataFrame") -> None:
    import polars

    for column in frame:
        name, kind = column.name, column.dtype
        if name == "volume" and kind == polars.Null:  # nobody knows any, and no feature reads it
            continue
        if name in STAMPS and not kind.is_integer():
            raise BadBars(
                f"expected integers in column {name}, whole epoch seconds (UTC); found "
                f"{kind}{_to_seconds(name, kind)}"
            )
        if not kind.is_numeric():
            raise BadBars(f"expected numbers in column {name}: found {kind}")
        if column.has_nulls() and name != "volume":
            row = column.is_null().arg_max()
            raise BadBars(f"row {row}: expected a number in every column: found null in {name}")


def _with_one_stamp(frame: "polars.DataFrame") -> "polars.DataFrame":
    """The same with its stamps as `datetime`, whichever column has them."""
    first, *others = [name for name in STAMPS if name in frame.columns]
    for other in others:
        differs = frame[first] != frame[other]
        if differs.any():
            row = differs.arg_max()
            assert row is not None  # there is one
            raise BadBars(
                f"row {row}: expected one stamp, found {frame[first][row]} in {first} and "
                f"{frame[other][row]} in {other}; drop the wrong column"
            )
    return frame.drop(others).rename({first: "datetime"})


def _to_seconds(name: str, kind: "polars.DataType") -> str:
    """How a column of dates, of this kind, becomes epoch seconds; nothing where it is none."""
    import polars

    steps = {polars.String: ".str.to_datetime()", polars.Date: ".cast(polars.Datetime)"}
    if not (kind.is_temporal() or kind == polars.String):
        return ""
    zoned = isinstance(kind, polars.Datetime) and kind.time_zone is not None
    zone = "" if zoned else ".dt.replace_time_zone('Asia/Kolkata')"
    return (
        f"; convert dates with polars: frame.with_columns(polars.col('{name}')"
        f"{steps.get(kind.base_type(), '')}{zone}.dt.epoch('s'))"
        + ("" if zoned else ", with the zone of the market's clock")
    )
