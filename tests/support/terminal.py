"""What the fixtures of tests/cli/show are called with."""

from collections.abc import Callable

Drawn = Callable[[int, Callable[[], None]], list[str]]
"""By width and what draws: the last lines of its progress."""

Table = Callable[..., list[list[str]]]
"""By width, what prints and its arguments: the lines of the table, cell by cell."""
