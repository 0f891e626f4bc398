"""`hrm`, called in this process, or in one of its own that lacks something."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
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


SERVING = Path(__file__).with_name("serving.py")
"""`hrm` without what only training needs."""


class Serving:
    """`SERVING`, in forks of one process that has loaded what it needs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = {**os.environ, **environment}

    def start(
        self, *arguments: object, before: str = "", **streams: Any
    ) -> "subprocess.Popen[str]":
        """A process of `hrm`, or where `before` is given of that code and then `hrm`."""
        command = [sys.executable, str(SERVING), *map(str, arguments)]
        environment = {**self._environment, "BEFORE": before}
        return subprocess.Popen(command, env=environment, text=True, **streams)

    def __call__(
        self, *arguments: object, before: str = "", stdout: int = subprocess.PIPE
    ) -> "subprocess.CompletedProcess[str]":
        """How such a process has ended."""
        with self.start(
            *arguments, before=before, stdout=stdout, stderr=subprocess.PIPE
        ) as process:
            said = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, *said)


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
