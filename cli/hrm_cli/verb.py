"""What is true of every verb: its exit codes, its messages, its one JSON object."""

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import typer

from hrm_cli.interrupts import Interrupted, Interrupts
from hrm_runtime.errors import GateFailed, HrmError

P = ParamSpec("P")
R = TypeVar("R")

GATE_FAILED: Final = 1
BAD_INPUT: Final = 2

OPTIONAL: Final = frozenset(
    {
        "bokeh_sampledata",
        "lightning_fabric",
        "matplotlib",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "polars",
        "pydantic",
        "safetensors",
        "sklearn",
        "torch",
        "yaml",
    }
)
"""Packages that come with an extra."""


def verb(
    extra: str = "cli", interrupted: str = "nothing was written"
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turn errors and signals into a message on stderr and an exit code.

    Args:
        extra: named where a package of it is missing.
        interrupted: what stands when a signal ends the verb.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                with Interrupts():
                    from hrm_cli import given

                    given.require(function.__name__, kwargs)
                    return function(*args, **kwargs)
            except Interrupted as signalled:
                fail(f"interrupted; {interrupted}", signalled.code)
            except ModuleNotFoundError as error:
                package = (error.name or "").partition(".")[0]
                if package not in OPTIONAL:
                    raise
                fail(f"{function.__name__} needs {package}: pip install '.[{extra}]'", BAD_INPUT)
            except GateFailed as error:
                fail(str(error), GATE_FAILED)
            except HrmError as error:
                fail(str(error), BAD_INPUT)

        return run

    return wrap


def fail(message: str, code: int) -> NoReturn:
    """End the verb with a message on stderr and an exit code."""
    print(f"hrm: {message}", file=sys.stderr)
    raise typer.Exit(code)


def print_json(document: dict[str, Any]) -> None:
    """The one object that a verb prints with --json."""
    text = json.dumps(document, default=asdict)
    finite = json.loads(text, parse_constant=lambda _: None)  # JSON has no infinity
    print(json.dumps(finite))
