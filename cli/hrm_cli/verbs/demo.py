"""`hrm demo`: all of it on bundled bars."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.interrupts import Interrupted
from hrm_cli.options import also
from hrm_cli.verb import GATE_FAILED, verb

app = typer.Typer()


@app.command(context_settings=also(model="artifact"))
@verb("demo", interrupted="what it had made is removed")
def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="New folder for everything the demo makes.")
    ] = Path("hrm-demo"),
    artifact: Annotated[
        Path | None,
        typer.Option(
            metavar="ARTIFACT",
            help="One that decides for the same bars first.",
            show_default="models/base/artifact, where it is",
        ),
    ] = None,
) -> None:
    """Do all of it on bundled real bars: decide, train, export, parity, decide without torch."""
    from hrm_cli.demo import RELEASED, run

    if artifact is None and RELEASED.is_dir():
        artifact = RELEASED
    ours = not os.path.lexists(out)
    try:
        passed = run(out, artifact)
    except Interrupted:
        if ours:
            shutil.rmtree(out, ignore_errors=True)
        raise
    if not passed:
        raise typer.Exit(GATE_FAILED)
