"""`hrm trace`: how one decision comes about."""

from pathlib import Path
from typing import Annotated

import typer

from hrm_cli.options import (
    Artifact,
    Capital,
    DistanceToTrail,
    EntryPrice,
    Instrument,
    Json,
    OneFile,
    Position,
    Timeframe,
    UnrealizedPnl,
    account_of,
    also,
)
from hrm_cli.verb import GATE_FAILED, print_json, verb

app = typer.Typer()


@app.command(context_settings=also(bars="data", out="picture"))
@verb()
def trace(
    artifact: Artifact,
    data: OneFile,
    picture: Annotated[Path, typer.Option(metavar="FILE", help="PNG file to draw.")],
    instrument: Instrument = None,
    timeframe: Timeframe = None,
    capital: Capital = 1_000_000.0,
    position: Position = 0.0,
    entry_price: EntryPrice = 0.0,
    unrealized_pnl: UnrealizedPnl = 0.0,
    distance_to_trail: DistanceToTrail = 0.0,
    as_json: Json = False,
) -> None:
    """Draw how the decision at the close of the newest bar comes about, step by step."""
    from hrm_cli.readers import one_series
    from hrm_cli.show import console, draw, report
    from hrm_cli.show.decision import unknown
    from hrm_runtime import load
    from hrm_runtime.measure.trace import trace as follow

    draw.require_picture(picture)
    account = account_of(capital, position, entry_price, unrealized_pnl, distance_to_trail)
    model = load(artifact)
    name, frame, closed = one_series(data, instrument, timeframe)
    found = follow(model, closed, account, instrument=name, timeframe=frame)
    draw.trace(found, picture)
    if as_json:
        print_json(report.trace_fields(found))
    else:
        report.trace(found)
    unknown(model.contract, name, frame)
    console.note(f"wrote {picture}")
    if found.decision.degraded:
        raise typer.Exit(GATE_FAILED)
