"""What an artifact's decisions would have come to on bars that are past.

It walks the bars as a live process would have met them: decide at a close, execute in the bar after
it as the rules say. What it shows is one path through one stretch of the past; its intervals say
how far chance alone may have moved it.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np

from hrm_runtime.artifact.contract import LATEST_MOMENT, Contract, Features
from hrm_runtime.artifact.decision import Decision, Reason
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.unknown import unknown_names
from hrm_runtime.backtest.book import Book, Exit, Trade
from hrm_runtime.backtest.bootstrap import LEAST_BLOCKS, interval
from hrm_runtime.backtest.rules import OURS, Rules
from hrm_runtime.errors import (
    BadBars,
    BadInput,
    NothingToDecide,
    TooFewBars,
    UnknownInstrument,
    UnknownTimeframe,
)
from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import Action
from hrm_runtime.market.bars import Bars, Floats, Integers, counted
from hrm_runtime.market.features import Row, rows
from hrm_runtime.market.series import SkippedSeries, none_left
from hrm_runtime.market.spacing import require_spacing
from hrm_runtime.market.stamps import moment

CAPITAL: Final = 1_000_000.0


@dataclass(frozen=True, eq=False)
class Backtest:
    """One series walked through: d decisions, hence d + 1 closes from the first decision's on.

    Attributes:
        instrument, timeframe: names.
        unknown: which of these the artifact was not trained on, as `Decision.unknown`.
        model_id: sha256 of the artifact's contract.
        rules: under which it was walked.
        since: epoch seconds; no bar that opens before it was decided at.
        in_sample: whether the weights were trained on what followed some of these bars: then
            nothing here is evidence.
        capital: currency at the first close.
        datetime: int64 [d + 1], stamps.
        equity: float64 [d + 1], currency at each close, an open position at its price there.
        buy_and_hold: float64 [d + 1], of the capital invested once where the first decision is
            filled, without leverage, in fractional units, at the same proportional costs.
        trades: oldest first.
        decisions: how many were which action.
        degraded: how many of them were HOLD because they could not be trusted, by reason.
        unaffordable: openings, and closes that the cash caps, skipped because it did not pay for
            one lot.
        used_up: stamp of the bar that used up the capital; there trading stopped. None if none did.
        block: bars per block of the intervals' bootstrap.
        return_interval: 95 % interval of `final_return`.
        excess_interval: 95 % interval of `final_return` less that of buy and hold.
    """

    instrument: str
    timeframe: str
    unknown: tuple[str, ...]
    model_id: str
    rules: Rules
    since: int
    in_sample: bool
    capital: float
    datetime: Integers
    equity: Floats
    buy_and_hold: Floats
    trades: tuple[Trade, ...]
    decisions: dict[Action, int]
    degraded: dict[Reason, int]
    unaffordable: int
    used_up: int | None
    block: int
    return_interval: tuple[float, float]
    excess_interval: tuple[float, float]

    def __repr__(self) -> str:
        first, last = map(moment, self.datetime[[0, -1]].tolist())
        return (
            f"Backtest({self.instrument} {self.timeframe}, {first} to {last}, "
            f"{counted(len(self.trades), 'trade')}, return {self.final_return:+.1%})"
        )

    @property
    def do_nothing(self) -> Floats:
        """float64 [d + 1]: the capital."""
        return np.full(len(self.equity), self.capital)

    @property
    def final_return(self) -> float:
        """Of the capital, as a fraction."""
        return float(self.equity[-1]) / self.capital - 1.0

    @property
    def buy_and_hold_return(self) -> float:
        """Of the capital, as a fraction."""
        return float(self.buy_and_hold[-1]) / self.capital - 1.0

    @property
    def max_drawdown(self) -> float:
        """The deepest fall of the equity from its highest close before, as a fraction of that."""
        return float((1.0 - self.equity / np.maximum.accumulate(self.equity)).max())

    @property
    def won(self) -> int:
        """Trades with a profit after costs."""
        return sum(trade.profit > 0 for trade in self.trades)

    @property
    def costs(self) -> float:
        """Of all executions, currency."""
        return math.fsum(trade.costs for trade in self.trades)


def backtest(
    model: Model,
    bars: Bars,
    *,
    instrument: str,
    timeframe: str,
    capital: float = CAPITAL,
    since: int | None = None,
    rules: Rules = OURS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Backtest:
    """Walk through `bars`, deciding at every close from `since` on that has a bar after it.

    Whatever the rules, there is one position at a time, of the lots decided within what the cash
    affords at the fill, with brokerage on both executions; its levels act on closes, and one still
    open at the end is closed at the last close. By `OURS` a decision is filled at the next open, at
    proportional costs, and a stop at the close that reached it. Those of a host are for comparing
    with its own reports: they fill at closes, and some book a stop at its own price, which
    flatters every strategy, a random one too, because a close is mostly beyond the stop that it
    reaches.

    Args:
        model: `load`ed, or anything with its `contract`, `id` and `decide_rows`.
        bars: of one series, at least `contract.bars_needed` + 1.
        capital: currency, > 0.
        since: epoch seconds; earlier bars are history only. By default the moment before which
            everything was known that the weights were trained on.
        rules: `OURS`, others of `RULES`, or any.
        on_progress: called with the number of decisions made so far.

    Raises:
        BadBars, NothingToDecide, UnknownInstrument, UnknownTimeframe: as `decision_bars`.
        BadAccount: `capital` is not a finite number above 0.
        BadInput: `rules` are no `Rules`.
        InferenceFailed: onnxruntime failed.
    """
    contract = model.contract
    deciding = decision_bars(
        contract, bars, instrument=instrument, timeframe=timeframe, since=since
    )
    bars = bars[deciding.start + 1 - contract.bars_needed :]
    book = Book(
        Account.flat(capital).capital,
        contract.instrument(instrument),
        contract.trading,
        rules,
    )
    decide = partial(model.decide_rows, instrument=instrument, timeframe=timeframe)
    walk = _walk(decide, bars, contract.features, book, on_progress)
    seen = bars[contract.bars_needed - 1 :]
    return _summary(walk, seen, book, model, (instrument, timeframe), since)


@dataclass(frozen=True, eq=False)
class Backtests:
    """Several series walked through, and those that could not be; at least one could."""

    done: tuple[Backtest, ...]
    skipped: tuple[SkippedSeries, ...]


def backtests(
    model: Model,
    series: Mapping[tuple[str, str], Bars],
    *,
    capital: float = CAPITAL,
    since: int | None = None,
    rules: Rules = OURS,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Backtests:
    """`backtest` of every series in which there is something to decide on; others are named.

    What is not listed here is taken, and raised, as by `backtest`.

    Args:
        series: by (instrument, timeframe).
        on_progress: called with the decisions made so far, and those to be made.

    Raises:
        NothingToDecide, UnknownInstrument, UnknownTimeframe: as `decision_bars` of the only series.
        BadBars: as `decision_bars` of any.
        NothingToDecide: of several, none is left; it names each with its reason.
    """
    steps: dict[tuple[str, str], int] = {}
    skipped = []
    for (name, timeframe), bars in series.items():
        try:
            deciding = decision_bars(
                model.contract, bars, instrument=name, timeframe=timeframe, since=since
            )
        except (NothingToDecide, UnknownInstrument, UnknownTimeframe) as error:
            if len(series) == 1:
                raise
            reason = str(error).removeprefix(f"{name}_{timeframe}: ")
            skipped.append(SkippedSeries(name, timeframe, reason))
        else:
            steps[name, timeframe] = len(deciding)
    if not steps:
        raise NothingToDecide(none_left(skipped))
    done: list[Backtest] = []
    total, before = sum(steps.values()), 0
    for (name, timeframe), count in steps.items():

        def on_decision(made: int, before: int = before) -> None:
            on_progress(before + made, total)

        done.append(
            backtest(
                model,
                series[name, timeframe],
                instrument=name,
                timeframe=timeframe,
                capital=capital,
                since=since,
                rules=rules,
                on_progress=on_decision,
            )
        )
        before += count
    return Backtests(tuple(done), tuple(skipped))


def decision_bars(
    contract: Contract, bars: Bars, *, instrument: str, timeframe: str, since: int | None = None
) -> range:
    """The indices of the bars that a backtest decides at: all that have their history, a bar after
    them, and do not open before `since`.

    Args:
        since: epoch seconds; `contract.provenance.trained_until` if left out.

    Raises:
        UnknownInstrument, UnknownTimeframe: where the contract does not allow them.
        BadBars: they are of another timeframe.
        TooFewBars: no bar has its history and a bar after it.
        NothingToDecide: none of those opens at or after `since`, or the price never moves.
        BadInput: `since` is not a moment in epoch seconds.
    """
    contract.instrument(instrument)
    seconds = contract.timeframe_seconds(timeframe)
    if since is not None and not 0 <= since < LATEST_MOMENT:
        raise BadInput(f"since: expected epoch seconds, found {since!r}")
    name, needed = f"{instrument}_{timeframe}", contract.bars_needed
    if len(bars) <= needed:
        raise TooFewBars(
            f"{name}: expected at least {needed + 1} bars, {needed} behind one decision and one to "
            f"execute it at, found {len(bars)}"
        )
    trained_until = contract.provenance.trained_until
    wanted = trained_until if since is None else since
    first = max(needed - 1, int(np.searchsorted(bars.datetime, wanted)))
    if first >= len(bars) - 1:
        raise NothingToDecide(
            f"{name}: expected at least two bars from {moment(wanted)} on, found the last of "
            f"{len(bars)} at {moment(int(bars.datetime[-1]))}; the weights were trained on what "
            f"was known before {moment(trained_until)}: give later bars, or an earlier `since` to "
            "look at what they have seen"
        )
    walked = bars[first + 1 - needed :]
    try:
        require_spacing(walked.datetime, seconds)
    except BadBars as error:
        raise BadBars(f"{name}: {error}") from error
    if walked.low.min() == walked.high.max():
        raise NothingToDecide(
            f"{name}: expected a price that moves, found {walked.low[0]:g} always"
        )
    return range(first, len(bars) - 1)


@dataclass
class _Walk:
    """What is counted on the way."""

    equity: list[float]
    decisions: Counter[Action] = field(default_factory=Counter)
    degraded: Counter[Reason] = field(default_factory=Counter)
    unaffordable: int = 0
    used_up: int | None = None


def _walk(
    decide: Callable[[Sequence[Row], Account], Decision],
    bars: Bars,
    features: Features,
    book: Book,
    on_progress: Callable[[int], None],
) -> _Walk:
    """Decide at the first bar with a full window behind it and at all others but the last."""
    table = rows(bars, features.history_bars)
    seen = bars[features.history_bars + features.window - 2 :]
    stamps, opens, closes = seen.datetime.tolist(), seen.open.tolist(), seen.close.tolist()
    walk, at_decision = _Walk(equity=[book.cash]), book.rules.atr == "decision"
    for now, after in pairwise(range(len(seen))):
        if walk.used_up is None:
            window = table[now : now + features.window]
            decision = decide(window, book.account(closes[now]))
            walk.decisions[decision.action] += 1
            if decision.degraded:
                walk.degraded[decision.reason] += 1
            atr = table[(now if at_decision else after) + features.window - 1].atr
            if not book.advance(decision, opens[after], closes[after], atr, stamps[after]):
                walk.unaffordable += 1
            if after == len(seen) - 1:
                book.close(closes[after], stamps[after], Exit.END)
            if book.used_up:
                walk.used_up = stamps[after]
        walk.equity.append(book.equity(closes[after]))
        on_progress(after)
    return walk


def _summary(
    walk: _Walk, seen: Bars, book: Book, model: Model, name: tuple[str, str], since: int | None
) -> Backtest:
    """What the walk over `seen` came to, and how far chance alone may have moved that."""
    contract, (capital, *_) = model.contract, walk.equity
    trained_until = contract.provenance.trained_until
    held = _buy_and_hold(seen, capital, contract.trading.cost_fraction, book.rules)
    changes = np.diff(walk.equity)
    share = np.full(len(changes), capital / len(changes))
    block = max(math.isqrt(len(changes)), LEAST_BLOCKS)
    return Backtest(
        instrument=name[0],
        timeframe=name[1],
        unknown=unknown_names(contract, *name),
        model_id=model.id,
        rules=book.rules,
        since=trained_until if since is None else since,
        in_sample=int(seen.datetime[0]) < trained_until,
        capital=capital,
        datetime=seen.datetime,
        equity=np.array(walk.equity),
        buy_and_hold=held,
        trades=tuple(book.trades),
        decisions={action: walk.decisions[action] for action in Action},
        degraded=dict(walk.degraded),
        unaffordable=walk.unaffordable,
        used_up=walk.used_up,
        block=block,
        return_interval=interval(changes, share, block),
        excess_interval=interval(changes - np.diff(held), share, block),
    )


def _buy_and_hold(bars: Bars, capital: float, cost_fraction: float, rules: Rules) -> Floats:
    """Bought where the first decision is filled, in the second bar, sold at the last close."""
    price = float((bars.open if rules.fill == "open" else bars.close)[1])
    cost_fraction = cost_fraction if rules.proportional_costs else 0.0
    units = capital / (price * (1.0 + cost_fraction))
    equity = units * bars.close
    equity[0] = capital
    equity[-1] *= 1.0 - cost_fraction
    return equity
