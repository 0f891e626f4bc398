"""`hrm bench`: how fast an artifact is here."""

from typing import Annotated

import typer

from hrm_cli.options import Artifact, Json, Picture, also
from hrm_cli.verb import GATE_FAILED, print_json, verb

app = typer.Typer()


@app.command(context_settings=also(out="picture"))
@verb("bench")
def bench(
    artifact: Artifact,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Beside other precisions and libraries; takes minutes."),
    ] = False,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Measure how fast an artifact answers here, and the memory it takes."""
    from hrm_cli.show import console, draw, progress, speed

    if picture is not None:
        draw.require_picture(picture)
    if peers:
        from hrm_export.peers.bench import bench as measure
    else:
        from hrm_runtime.measure.bench import bench as measure
    with progress.stages() as on_progress:
        found = measure(artifact, on_progress)
    if as_json:
        print_json(speed.fields(found))
    else:
        speed.speeds(found)
    if picture is not None:
        draw.bench(found, picture)
        console.note(f"wrote {picture}")
    if not any(result.weights == "artifact" for result in found.results):
        raise typer.Exit(GATE_FAILED)
