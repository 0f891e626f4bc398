"""`hrm init`: settings to begin with."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.verb import verb

app = typer.Typer()


class Preset(StrEnum):
    """Names of `hrm_train.settings.PRESETS`, known without importing torch."""

    TINY = "tiny"
    BASE = "base"


@app.command()
@verb("train")
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write it; made if it is not there.")
    ],
    preset: Annotated[Preset, typer.Option(help="Size of the network.")] = Preset.BASE,
    add: Annotated[
        bool,
        typer.Option("--add", help="Add ours to the settings.yaml that is there, as one section."),
    ] = False,
) -> None:
    """Write a commented settings.yaml, or add ours to a host's."""
    from hrm_cli.show import console
    from hrm_train.settings import add_preset, write_preset

    if add:
        console.note(f"added hierarchical_reasoning_model to {add_preset(folder, preset)}")
    else:
        console.note(f"wrote {write_preset(folder, preset)}")
