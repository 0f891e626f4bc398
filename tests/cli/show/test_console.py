"""A line is shown as it is, and nothing where one process of several speaks for all."""

import io

import pytest
from rich.console import Console

from hrm_cli.show import console


def test_a_heading_is_shown_as_it_is_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=written, width=60))
    text = f"6  Decide with {'/long' * 20}/[bold]artifact"
    console.heading(text)
    assert written.getvalue() == f"\n{text}\n"


def test_silence_says_nothing_on_either_stream(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in (console.out, console.err):
        monkeypatch.setattr(stream, "quiet", False)
    console.silence()
    console.note("done")
    console.out.print("done")
    assert capsys.readouterr() == ("", "")
