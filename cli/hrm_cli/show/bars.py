"""What was read of the bars that were given, and what could not be used."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from hrm_cli.show import console
from hrm_runtime.market.series import SkippedSeries

if TYPE_CHECKING:
    from hrm_train.data.prepared import Series


def series(found: "Sequence[Series]") -> None:
    """What was read, and what was mended or skipped."""
    table = console.framed("series", "bars", "duplicates", "out of order", "samples", title="Data")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found:
        table.add_row(
            escape(f"{one.instrument}_{one.timeframe}"),
            f"{one.bars:,}",
            str(one.duplicates),
            str(one.disordered),
            f"skipped: {one.skipped}" if one.skipped else f"{one.samples:,}",
        )
    console.out.print(table)


def price(value: float) -> str:
    """With two decimals, or as many as show four digits of a small one."""
    return f"{value:,.{max(2, 3 - math.floor(math.log10(value)))}f}"


def skipped(found: Sequence[SkippedSeries]) -> None:
    """The series of the given bars that nothing could be done with, and why: last of all."""
    for one in found:
        console.out.print(f"skipped {one}", highlight=False, markup=False, soft_wrap=True)
