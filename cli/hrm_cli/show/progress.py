"""How far a piece of work is: on a terminal it moves, elsewhere it is lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from hrm_cli.show import console

WHOLE: Final = Column(no_wrap=True)
"""Of progress, never shortened: where a terminal is narrow, the bar is."""


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on a terminal, a line elsewhere."""
    if not console.err.is_terminal:
        console.note(text)
    with console.err.status(text):
        yield


@contextmanager
def advancing(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, a line elsewhere; it is told the steps done, and all."""
    if not console.err.is_terminal:
        console.note(text)
    columns = (
        TextColumn(text),
        BarColumn(),
        MofNCompleteColumn(table_column=WHOLE),
        TimeRemainingColumn(table_column=WHOLE),
    )
    with Progress(*columns, console=console.err, disable=not console.err.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """As `advancing`, through several of them. Nothing is drawn while nothing is told."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(table_column=WHOLE),
    )
    with Progress(
        *columns, console=console.err, disable=not console.err.is_terminal, auto_refresh=False
    ) as progress:
        task, said = progress.add_task("", total=None), ""

        def on_progress(text: str, done: int, of: int) -> None:
            nonlocal said
            progress.update(task, description=text, completed=done, total=of, refresh=True)
            if not console.err.is_terminal and text != said:
                console.note(text)
            said = text

        yield on_progress
