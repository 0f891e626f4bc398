"""The two streams, and how a line and a table look on them."""

from typing import Any, Final

from rich.console import Console
from rich.table import Table

from hrm_runtime.market.stamps import moment

out = Console()
err = Console(stderr=True)

WIDE: Final = 80
"""Columns of a terminal; in a narrower one tables and progress stand closer."""


def note(text: str) -> None:
    """A line about what was done, however long."""
    err.print(text, highlight=False, markup=False, soft_wrap=True)


def heading(text: str) -> None:
    """The title of a part of longer work."""
    err.print(f"\n{text}", style="bold", highlight=False, markup=False, soft_wrap=True)


def day(stamp: int) -> str:
    """The day of epoch seconds, in UTC."""
    return moment(stamp).partition(" ")[0]


def framed(*headers: str, **how: Any) -> Table:
    """A table of which nothing is cut: what has too little room is folded."""
    made = Table(*headers, padding=(0, int(out.width >= WIDE)), **how)
    for column in made.columns:
        column.overflow = "fold"
    return made


def silence() -> None:
    """Say nothing: one process of several speaks for all."""
    out.quiet = err.quiet = True
