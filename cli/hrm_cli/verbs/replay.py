"""`hrm replay`: a live engine's journal decided again."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.options import Json, also
from hrm_cli.verb import GATE_FAILED, print_json, verb

app = typer.Typer()


@app.command(context_settings=also(model="artifact"))
@verb()
def replay(
    journal: Annotated[
        Path,
        typer.Argument(metavar="JOURNAL", help="Folder of a live engine, or one of its files."),
    ],
    artifact: Annotated[
        list[Path],
        typer.Option(metavar="ARTIFACT", help="An artifact that decided; repeatable."),
    ],
    as_json: Json = False,
) -> None:
    """Decide again what a live engine's journal holds, and name the first difference."""
    from hrm_cli.show import progress, report
    from hrm_runtime import load
    from hrm_runtime.live.replay import replay as again

    models = [load(path) for path in artifact]
    with progress.working("deciding again"):
        found = again(journal, models)
    if as_json:
        print_json(asdict(found))
    else:
        report.replayed(found)
    if found.difference is not None:
        raise typer.Exit(GATE_FAILED)
