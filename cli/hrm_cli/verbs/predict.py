"""`hrm predict`: one decision."""

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


@app.command(context_settings=also(bars="data"))
@verb()
def predict(
    artifact: Artifact,
    data: OneFile,
    instrument: Instrument = None,
    timeframe: Timeframe = None,
    capital: Capital = 1_000_000.0,
    position: Position = 0.0,
    entry_price: EntryPrice = 0.0,
    unrealized_pnl: UnrealizedPnl = 0.0,
    distance_to_trail: DistanceToTrail = 0.0,
    as_json: Json = False,
) -> None:
    """Decide at the close of the newest bar."""
    from hrm_cli.readers import one_series
    from hrm_cli.show.decision import decision_fields, decisions, unknown
    from hrm_runtime import load

    model = load(artifact)
    account = account_of(capital, position, entry_price, unrealized_pnl, distance_to_trail)
    name, frame, closed = one_series(data, instrument, timeframe)
    decision = model.decide(closed, account, instrument=name, timeframe=frame)
    if as_json:
        print_json(decision_fields(decision))
    else:
        decisions([(name, frame, closed, decision)])
    unknown(model.contract, name, frame)
    if decision.degraded:
        raise typer.Exit(GATE_FAILED)
