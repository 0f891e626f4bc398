"""The command line: the verbs, gathered.

Exit codes: 0 done, 1 a gate failed or a replay differed, 2 bad input or usage, 130 Ctrl-C, 143
SIGTERM; 141 where what reads the output has closed it (`hrm_cli.__main__`).
"""

from importlib import import_module
from typing import Annotated, Final

import typer

import hrm_runtime

VERBS: Final = (
    "init",
    "prepare",
    "train",
    "evaluate",
    "export",
    "parity",
    "inspect",
    "predict",
    "bench",
    "backtest",
    "trace",
    "replay",
    "demo",
)
"""Modules of `hrm_cli.verbs`, in the order in which --help lists them."""

app = typer.Typer(
    name="hrm",
    help="Train a Hierarchical Reasoning Model, export it, and decide with it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a gate failed or a replay differed, 2 bad input or usage, "
    "130 Ctrl-C, 143 SIGTERM.",
    pretty_exceptions_enable=False,
)
for _verb in VERBS:
    app.add_typer(import_module(f"hrm_cli.verbs.{_verb}").app)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"hrm {hrm_runtime.__version__}")
        raise typer.Exit


@app.callback()
def hrm(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What holds of all verbs."""
