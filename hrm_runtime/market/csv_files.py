"""Bars from CSV files and into them; what cannot be read is named by line and column."""

import csv
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from hrm_runtime.errors import BadBars
from hrm_runtime.market.bars import REQUIRED, STAMPS, Bars, Floats, columns_in_file
from hrm_runtime.market.stamps import bad_stamp, dates_to_seconds, not_stamps

_DATE: Final = re.compile(r"\s*\d{1,4}([-/.])\d{1,2}\1\d{1,4}")

_ZONED: Final = re.compile(r"(Z|[+-]\d{2}:?\d{2})\s*$")


def read_csv(path: str | Path) -> Bars:
    """Bars from a CSV file with a header; columns are found by name, others are ignored.

    A file that a host has computed features into calls its stamps `datetime_epoch`.

    Raises:
        BadBars: the file is missing, unreadable or not CSV text, a column is missing or given
            twice, a cell is not a number or a stamp not in seconds (the message names line and
            column), two columns of stamps differ, or as `Bars`. Parquet is refused with what reads
            it: `hrm_train.parquet`.
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


def _columns(file: Iterable[str]) -> dict[str, Floats]:
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    known = _known(header)
    places = [header.index(name) for name in known]
    rows, lines = [], []
    for cells in reader:
        if cells:
            rows.append(_numbers_of_line(reader.line_num, cells, header, places))
            lines.append(reader.line_num)
    table = np.array(rows).reshape(len(rows), len(known))
    columns = dict(zip(known, table.T, strict=True))
    _require_finite(columns, lines)
    return _with_one_stamp(columns, lines)


def _with_one_stamp(columns: dict[str, Floats], lines: list[int]) -> dict[str, Floats]:
    """The same with its stamps as `datetime`, whichever column has them."""
    stamps = {name: columns.pop(name) for name in STAMPS if name in columns}
    for name, column in stamps.items():
        if (bad := not_stamps(column)).any():
            where = int(np.argmax(bad))
            raise BadBars(f"line {lines[where]}, column {name}: {bad_stamp(column[where])}")
    first, *others = stamps.values()
    for other in others:
        if (differs := first != other).any():
            where = int(np.argmax(differs))
            raise BadBars(
                f"line {lines[where]}: expected one stamp, found {first[where]:.0f} in "
                f"{STAMPS[0]} and {other[where]:.0f} in {STAMPS[1]}; drop the wrong column"
            )
    return {"datetime": first, **columns}


def _known(header: list[str]) -> list[str]:
    """The columns that bars are made of.

    Raises:
        BadBars: the first line names none, and what it is instead; one is missing, or given twice.
    """
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
    return columns_in_file(header)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers_of_line(
    line: int, cells: list[str], header: list[str], places: list[int]
) -> list[float]:
    if len(cells) <= max(places) or any(cells[len(header) :]):
        raise BadBars(
            f"line {line}: expected {len(header)} cells as in the header, found {len(cells)}"
            + ("; write numbers with a decimal point" if len(cells) > len(header) else "")
        )
    try:
        return [_number(cells[place], header[place]) for place in places]
    except ValueError:
        place = next(place for place in places if not _is_number(cells[place]))
        explained = _bad_cell(header[place], cells[place])
        raise BadBars(f"line {line}, column {header[place]}: {explained}") from None


def _number(cell: str, name: str) -> float:
    """What a cell says; an empty one of volume, which no feature reads, says nothing."""
    return math.nan if name == "volume" and not cell.strip() else float(cell)


def _bad_cell(name: str, cell: str) -> str:
    """What was expected, what was found, and what to do."""
    if not cell.strip():
        return "expected a number, found an empty cell; fill it or drop the line"
    if re.fullmatch(r"\s*[+-]?[\d.]*,\d*\s*", cell):
        return f"expected a number with a decimal point, found {cell!r}; write it with one"
    if name not in STAMPS:
        return f"expected a number, found {cell!r}; mend it or drop the line"
    return f"expected epoch seconds (UTC), found {cell!r}" + (
        f"; convert it with pandas: {dates_to_seconds(_ZONED.search(cell) is not None)}"
        if _DATE.match(cell)
        else "; mend it or drop the line"
    )


def _require_finite(columns: dict[str, Floats], lines: list[int]) -> None:
    """Of every column but that of volume, which no feature reads."""
    names = [name for name in columns if name != "volume"]
    bad = ~np.isfinite([columns[name] for name in names])  # [column, row]
    if bad.any():
        row, column = np.argwhere(bad.T)[0].tolist()
        raise BadBars(
            f"line {lines[row]}, column {names[column]}: expected a finite number, found "
            f"{columns[names[column]][row]:g}; fill it or drop the line"
        )
