"""`hrm export`: a checkpoint to an artifact."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.options import Checkpoint, Json
from hrm_cli.verb import print_json, verb

app = typer.Typer()


class Precision(StrEnum):
    """Of the weights of an artifact."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@app.command()
@verb("export")
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New artifact folder.")],
    precision: Annotated[Precision, typer.Option(help="Of the weights.")] = Precision.FP32,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="BARS",
            help="To calibrate int8 on, for a checkpoint trained without; repeatable.",
        ),
    ] = None,
    golden: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="BARS",
            help="For the golden vectors, instead of the held-out windows; repeatable.",
        ),
    ] = None,
    cycles: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of H, where not those of training.")
    ] = None,
    timesteps: Annotated[
        int | None,
        typer.Option(metavar="T", help="Steps of L per step of H, where not those of training."),
    ] = None,
    max_megabytes: Annotated[float, typer.Option(metavar="MB", help="Largest graph.")] = 100.0,
    as_json: Json = False,
) -> None:
    """Write the artifact of a checkpoint, proven equal to torch on held-out windows."""
    from hrm_cli.show import bars, console, ladder, progress
    from hrm_export import export as write

    with progress.working("converting, composing, comparing with torch"):
        exported = write(
            checkpoint,
            out,
            precision=precision.value,
            calibration=calibration or (),
            golden=golden or (),
            cycles=cycles,
            timesteps=timesteps,
            max_megabytes=max_megabytes,
        )
    if as_json:
        made = {"path": str(exported.path), "model_id": exported.model_id}
        print_json({**made, "skipped": exported.skipped})
    else:
        ladder.changes(exported.changes)
        ladder.parity(exported.contract.parity)
        bars.skipped(exported.skipped)
        console.note(f"wrote {exported.path}\nid {exported.model_id}")
