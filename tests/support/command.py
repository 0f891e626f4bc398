"""`hrm`, called in this process, or in one of its own that lacks something."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from typer.testing import CliRunner

from hrm_cli.app import app

DONE, GATE_FAILED, BAD_INPUT = 0, 1, 2


def hrm(*arguments: object) -> Any:
    """The result of a call."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    """The one JSON object of a successful call."""
    result = hrm(*arguments, "--json")
    assert result.exit_code == DONE, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def without(*packages: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`hrm` in a process in which none of these can be imported."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({packages!r})); "
        "from hrm_cli.__main__ import main; main()"
    )

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def asked_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is called once, and has that answer for whoever calls it again."""
    answers: list[Any] = []

    def ask(*arguments: Any, **named: Any) -> Any:
        if not answers:
            answers.append(function(*arguments, **named))
        return answers[0]

    return ask


def unframed(text: str) -> str:
    """What the command line says of its arguments in a frame, in one line."""
    return " ".join(text.translate(str.maketrans(dict.fromkeys("│╭╮╰╯─", " "))).split())
