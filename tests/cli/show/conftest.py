"""What a terminal of some width shows."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console
from terminal import Drawn, Table

from hrm_cli.show import console


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The last lines of progress that a terminal of some width shows, without control codes."""

    def shown(width: int, show_it: Callable[[], None]) -> list[str]:
        written = io.StringIO()
        terminal = Console(file=written, force_terminal=True, width=width, color_system="standard")
        monkeypatch.setattr(console, "err", terminal)
        show_it()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", plain).splitlines()
        assert max(map(len, lines)) <= width
        return [line.rstrip() for line in lines if line.strip()]

    return shown


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Table:
    """The words of each line of what is shown, cell by cell, where nothing is cut."""

    def shown(width: int, what: Callable[..., None], *arguments: object) -> list[list[str]]:
        written = io.StringIO()
        monkeypatch.setattr(
            console,
            "out",
            Console(file=written, force_terminal=True, width=width, color_system=None),
        )
        what(*arguments)
        lines = written.getvalue().splitlines()
        assert "…" not in written.getvalue()
        framed = [line for line in lines if line[:1] in {"│", "┃"}]
        assert max(map(len, framed)) <= width
        return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in framed]

    return shown
