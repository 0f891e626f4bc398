"""`hrm evaluate`: a checkpoint on what it was not trained on."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.options import BarsOrTensors, Device, Json, also
from hrm_cli.verb import print_json, verb

app = typer.Typer()


@app.command(context_settings=also(bars="data"))
@verb("train")
def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a folder of fold-1 to fold-K."),
    ],
    data: BarsOrTensors,
    device: Annotated[Device, typer.Option(help="Where the network answers.")] = Device.AUTO,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint on what it was not trained on, beside simple baselines."""
    from hrm_cli.show import bars, judgement, progress
    from hrm_train.judging.evaluation import evaluate as judge

    with progress.advancing("judging") as on_progress:
        found = judge(checkpoint, data, on_progress, device.value)
    if as_json:
        print_json(asdict(found))
    else:
        judgement.evaluation(found)
        bars.skipped(found.skipped)
