"""`hrm backtest`: past bars walked through."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from hrm_cli.options import Artifact, Capital, Data, Instrument, Json, Picture, Timeframe, also
from hrm_cli.verb import print_json, verb

app = typer.Typer()


class RulesName(StrEnum):
    """Names in `hrm_runtime.backtest.rules.RULES`."""

    OURS = "ours"
    HOST = "host"
    HOST_OWN_PRICE = "host-own-price"
    HOST_NO_TARGET = "host-no-target"


@app.command(context_settings=also(bars="data", out="picture"))
@verb()
def backtest(
    artifact: Artifact,
    data: Data,
    instrument: Instrument = None,
    timeframe: Timeframe = None,
    capital: Capital = 1_000_000.0,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="First day (UTC) to decide on.",
            show_default="where training ended",
        ),
    ] = None,
    rules: Annotated[
        RulesName,
        typer.Option(
            metavar="NAME",
            help="Of execution. ours: at the next open, with proportional costs; host, "
            "host-own-price, host-no-target: at the next close, without.",
        ),
    ] = RulesName.OURS,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Walk through past bars as a live process would have, and account for every trade."""
    from hrm_cli.readers import readers
    from hrm_cli.show import bars, console, draw, progress, report
    from hrm_cli.show.decision import unknown
    from hrm_runtime import load
    from hrm_runtime.backtest.rules import RULES
    from hrm_runtime.backtest.walk import backtests
    from hrm_runtime.market.series import read_series

    if picture is not None:
        draw.require_picture(picture)
    moment = None if since is None else int(since.replace(tzinfo=UTC).timestamp())
    model = load(artifact)
    series = read_series(data, readers(), instrument=instrument, timeframe=timeframe)
    with progress.advancing("deciding") as on_progress:
        found = backtests(
            model,
            series,
            capital=capital,
            since=moment,
            rules=RULES[rules],
            on_progress=on_progress,
        )
    if as_json:
        fields = [report.backtest_fields(one) for one in found.done]
        print_json({"series": fields, "skipped": found.skipped})
    else:
        report.backtests(found.done)
        bars.skipped(found.skipped)
    for one in found.done:
        unknown(model.contract, one.instrument, one.timeframe)
    if picture is not None:
        draw.backtests(found.done, picture)
        console.note(f"wrote {picture}")
