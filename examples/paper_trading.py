"""Trade on paper: decide at the closes of past bars, one after another as a live host would, by a
clock that stands at each close, and into a journal. Then decide everything in the journal again.

    python examples/paper_trading.py --bars hrm-demo/bars/IBM_D.csv --journal paper-journal

It needs `pip install .` and nothing more. A real host takes bars from its feed and the account from
its broker, sends orders there, and leaves `clock` and `deadline` to their defaults.
"""

import argparse
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hrm_runtime import (
    Action,
    BadInput,
    Bars,
    Decision,
    HrmError,
    Journal,
    LiveEngine,
    LiveSettings,
    TooFewBars,
    TradingHours,
    load,
    read_csv,
)
from hrm_runtime.backtest import Book, Exit
from hrm_runtime.bars import moment, series_name
from hrm_runtime.features import row
from hrm_runtime.live.replay import replay

CAPITAL = 1_000_000.0


@dataclass
class Clock:
    """Epoch seconds. By the clock on the wall every past bar would be stale."""

    now: float

    def __call__(self) -> float:
        """What it shows."""
        return self.now


def trade(
    engine: LiveEngine, clock: Clock, book: Book, bars: Bars, first: int, stream: dict[str, str]
) -> list[Decision]:
    """Decide at the bars from number `first` on; each decision is filled at the open after it."""
    contract, hours = engine.model.contract, engine.settings.hours_of(stream["instrument"])
    seconds = contract.timeframe_seconds(stream["timeframe"])
    newest = int(bars.datetime[first - 1])
    clock.now = hours.closing(newest, seconds) or newest + seconds
    engine.feed(bars[:first], **stream)
    decisions: list[Decision] = []
    for number in range(first, len(bars)):
        bar = bars[number : number + 1].newest()
        if decisions and decisions[-1].action is not Action.HOLD:
            decided_at = row(bars[:number], contract.features.history_bars)  # its ATR sets the stop
            book.execute(decisions[-1], bar.open, decided_at.atr, bar.datetime)
        book.settle(bar.close, bar.datetime)
        if book.used_up:
            break
        clock.now = hours.closing(bar.datetime, seconds) or bar.datetime + seconds
        decisions.append(engine.decide(bar, book.account(bar.close), **stream))
    book.close(bar.close, bar.datetime, Exit.END)
    return decisions


def held(file: Path) -> list[tuple[str, int, str]]:
    """Of the decisions that are HOLD because something cannot be trusted: reason, number, a why."""
    query = "SELECT reason, count(*), min(why) FROM decision WHERE reason <> 'ok' GROUP BY reason"
    with closing(sqlite3.connect(file)) as journal:
        return journal.execute(query).fetchall()


def run(given: argparse.Namespace) -> bool:
    """Trade, say what came of it, and replay; whether the replay found no difference."""
    if given.count < 1:
        raise BadInput(f"--bars-count: expected at least 1, found {given.count}")
    if given.journal.exists():
        raise BadInput(f"{given.journal}: expected a new folder; remove it, or give --journal")
    instrument, timeframe = series_name(given.bars)
    model, bars = load(given.artifact), read_csv(given.bars)
    contract = model.contract
    if len(bars) < contract.bars_needed:
        raise TooFewBars(
            f"{given.bars}: expected at least {contract.bars_needed} bars, found {len(bars)}"
        )
    first = max(contract.bars_needed - 1, len(bars) - given.count)
    begin, end = (moment(int(bars.datetime[number])) for number in (first, -1))
    print(f"{instrument} {timeframe}, bars from {begin} to {end}, artifact {model.id[:12]}")

    hours = TradingHours(given.sessions, given.time_zone, holidays=given.holidays)
    clock = Clock(0.0)  # set by what is traded
    book = Book(CAPITAL, contract.instrument(instrument), contract.trading)
    settings = LiveSettings(hours=hours, clock=clock, deadline=10.0)  # on paper nobody waits
    with LiveEngine(model, settings, Journal(given.journal)) as engine:
        stream = {"instrument": instrument, "timeframe": timeframe}
        decisions = trade(engine, clock, book, bars, first, stream)
        health = engine.health()

    actions = Counter(one.action.name for one in decisions if not one.degraded)
    counts = ", ".join(f"{count} {name}" for name, count in actions.most_common())
    print(f"decided   {actions.total()}: {counts or 'nothing'}")
    for file in sorted(given.journal.glob("*.sqlite")):
        for reason, count, why in held(file):
            print(f"held      {count}, {reason}: {why}")
    won = sum(one.profit > 0 for one in book.trades)
    print(f"traded    {len(book.trades)} times, {won} won; {CAPITAL:,.0f} became {book.cash:,.0f}")
    latency = health.latency
    print(
        f"health    {'serving' if health.serving else 'not serving'}, half of the decisions within "
        f"{latency.quantile(0.5):.0f} ms, the slowest {latency.slowest_ms:.0f} ms"
    )
    again = replay(given.journal, [model])
    found = again.difference
    said = "no difference"
    if found is not None:
        said = f"{found.what} differs: recorded {found.recorded}, found again {found.recomputed}"
    print(f"replayed  {again.recomputed} made again: {said}")
    return found is None


def main() -> int:
    """0 done, 1 the replay differs, 2 bad input or usage."""
    options = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = options.add_argument
    add("--artifact", type=Path, default=Path("models/base/artifact"), help="folder")
    add("--bars", type=Path, default=Path("hrm-demo/bars/IBM_D.csv"), help="SYMBOL_TIMEFRAME.csv")
    add("--bars-count", dest="count", type=int, default=120, help="bars at the end to decide at")
    add("--journal", type=Path, default=Path("paper-journal"), help="new folder")
    add("--sessions", nargs="*", default=["09:30-16:00"], help="of the market; none: always open")
    add("--time-zone", default="America/New_York", help="of the sessions")
    add("--holidays", nargs="*", default=[], help="days without a session, such as 2012-12-25")
    try:
        return 0 if run(options.parse_args()) else 1
    except HrmError as error:
        options.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
