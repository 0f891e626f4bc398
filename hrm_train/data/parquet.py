"""Bars from Parquet files, where polars is."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hrm_runtime.errors import BadBars
from hrm_runtime.market import series
from hrm_runtime.market.bars import REQUIRED, Bars, require_columns
from hrm_runtime.market.series import Reader

if TYPE_CHECKING:
    import polars


def read_parquet(path: str | Path) -> Bars:
    """Bars from a Parquet file; columns are found by name, others are ignored.

    Raises:
        BadBars: the file is missing, unreadable or not Parquet, a column is missing or not of
            numbers, `datetime` is not of integers, a value is null (the message names the row), or
            as `Bars`.
    """
    import polars  # training from tensors needs none

    path = Path(path)
    try:
        content = path.read_bytes()  # polars would take some names for patterns or addresses
        found = polars.read_parquet_schema(BytesIO(content))
        require_columns(found)
        names: list[str] = [name for name in (*REQUIRED, "volume") if name in found]
        frame = polars.read_parquet(BytesIO(content), columns=names)
        _require_numbers(frame)
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
        if name == "datetime" and not kind.is_integer():
            raise BadBars(
                f"expected integers in column {name}, whole epoch seconds (UTC); found "
                f"{kind}{_to_seconds(kind)}"
            )
        if not kind.is_numeric():
            raise BadBars(f"expected numbers in column {name}: found {kind}")
        if column.has_nulls() and name != "volume":
            row = column.is_null().arg_max()
            raise BadBars(f"row {row}: expected a number in every column: found null in {name}")


def _to_seconds(kind: "polars.DataType") -> str:
    """How a column of dates, of this kind, becomes epoch seconds; nothing where it is none."""
    import polars

    steps = {polars.String: ".str.to_datetime()", polars.Date: ".cast(polars.Datetime)"}
    if not (kind.is_temporal() or kind == polars.String):
        return ""
    zoned = isinstance(kind, polars.Datetime) and kind.time_zone is not None
    zone = "" if zoned else ".dt.replace_time_zone('Asia/Kolkata')"
    return (
        "; convert dates with polars: frame.with_columns(polars.col('datetime')"
        f"{steps.get(kind.base_type(), '')}{zone}.dt.epoch('s'))"
        + ("" if zoned else ", with the zone of the market's clock")
    )
