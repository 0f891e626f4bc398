"""`hrm parity`: an artifact against torch."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.options import Artifact, Data, Json, also
from hrm_cli.verb import GATE_FAILED, fail, print_json, verb

app = typer.Typer()


@app.command(context_settings=also(bars="data"))
@verb("export")
def parity(
    artifact: Artifact,
    checkpoint: Annotated[
        Path, typer.Option(metavar="CHECKPOINT", help="The checkpoint it was exported from.")
    ],
    data: Data,
    windows: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many decisions to compare.")
    ] = 2000,
    as_json: Json = False,
) -> None:
    """Hold an artifact against torch: every output, every decision."""
    from hrm_cli.show import bars, ladder, progress
    from hrm_export import check_parity
    from hrm_export.proof.parity import failures

    with progress.working("comparing with torch"):
        report = check_parity(artifact, checkpoint, data, windows)
    if as_json:
        print_json({"passed": report.passed, **asdict(report)})
    else:
        ladder.parity(report.stages)
        bars.skipped(report.skipped)
    if not report.passed:
        fail("\n".join(failures(report.stages)), GATE_FAILED)
