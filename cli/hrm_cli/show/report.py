"""Backtests, traces and replays in words: tables, and what `--json` prints of them."""

import math
from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from hrm_cli.show import console
from hrm_cli.show.decision import Probabilities, decision_fields
from hrm_runtime.backtest.rules import RULES
from hrm_runtime.backtest.walk import Backtest
from hrm_runtime.live.replay import Difference, Replayed
from hrm_runtime.market.bars import counted
from hrm_runtime.market.stamps import moment
from hrm_runtime.measure.trace import Trace

CAPTION = (
    "What these decisions would have come to on these bars under {rules}: one path through one "
    "stretch of the past, which says nothing about another. An interval that spans zero is no "
    "evidence of anything. Buy and hold is without leverage."
)


def backtests(done: Sequence[Backtest]) -> None:
    """One line per series; below them what was not done, and what all of it does not say."""
    table = console.framed(
        "series",
        "trades",
        "return, 95 %",
        "buy\nand hold",
        "drawdown",
        "costs",
        title="Backtest, days in UTC",
        show_lines=True,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for one in done:
        first, last = (console.day(int(one.datetime[end])) for end in (0, -1))
        table.add_row(
            f"[bold]{escape(one.instrument)}[/bold] {escape(one.timeframe)}\n{first}\n{last}",
            f"{len(one.trades):,}\n{one.won:,} won",
            f"{one.final_return:+.1%}\n{interval_text(one)}",
            f"{one.buy_and_hold_return:+.1%}",
            f"{one.max_drawdown:.1%}",
            f"{one.costs / one.capital:.1%}",
        )
    console.out.print(table)
    for one in done:
        if remarks := _remarks(one):
            console.out.print(f"{escape(one.instrument)} {escape(one.timeframe)}: {remarks}")
    names = [f"the rules called {name}" for name, rules in RULES.items() if rules == done[0].rules]
    told = CAPTION.format(rules=names[0] if names else "rules without a name")
    console.out.print(told, highlight=False)


def interval_text(one: Backtest) -> str:
    """The 95 % interval of the return."""
    low, high = one.return_interval
    return f"{low:+.1%} to {high:+.1%}" if math.isfinite(low) else "too few bars"


def backtest_fields(one: Backtest) -> dict[str, Any]:
    """A backtest as `hrm backtest --json` prints it."""
    return {
        **vars(one),
        "datetime": one.datetime.tolist(),
        "equity": one.equity.tolist(),
        "buy_and_hold": one.buy_and_hold.tolist(),
        "trades": [{**vars(trade), "side": trade.side.name} for trade in one.trades],
        "decisions": {action.name: count for action, count in one.decisions.items()},
        "won": one.won,
        "costs": one.costs,
        "final_return": one.final_return,
        "buy_and_hold_return": one.buy_and_hold_return,
        "max_drawdown": one.max_drawdown,
    }


def trace(found: Trace) -> None:
    """One line per segment."""
    table = console.framed(
        "segment",
        "change\nof L",
        "change\nof H",
        "probabilities",
        "halt,\ncontinue",
        title=escape(outcome(found)),
        show_lines=True,
    )
    for number, segment in enumerate(found.segments, start=1):
        halt, go_on = segment.decision.q_values
        table.add_row(
            str(number),
            "\n".join(f"{cycle[0]:.2g} to {cycle[-1]:.2g}" for cycle in segment.l_residual),
            "\n".join(f"{cycle:.2g}" for cycle in segment.h_residual),
            Probabilities(segment.decision),
            f"{halt:.3f}, {go_on:.3f}",
        )
    console.out.print(table)


def outcome(found: Trace) -> str:
    """What was decided, after how many segments, and why after those."""
    decision = found.decision
    if decision.degraded:
        return f"{decision.action.name}, for the network's answer was {decision.reason}"
    passes = counted(decision.segments, "segment")
    halt, go_on = decision.q_values
    stopped = f"halt {halt:.3f} > continue {go_on:.3f}" if found.halted else "the limit"
    return f"{decision.order}, after {passes}: {stopped}"


def trace_fields(found: Trace) -> dict[str, Any]:
    """A trace as `hrm trace --json` prints it."""
    return {
        "instrument": found.instrument,
        "timeframe": found.timeframe,
        "datetime": found.datetime,
        "close": found.close,
        "account": vars(found.account),
        "decision": decision_fields(found.decision),
        "halted": found.halted,
        "segments": [
            {
                "l_residual": segment.l_residual.tolist(),
                "h_residual": segment.h_residual.tolist(),
                "decision": decision_fields(segment.decision),
            }
            for segment in found.segments
        ],
    }


def replayed(found: Replayed) -> None:
    """How much was gone through; below it the difference, if there is one."""
    table = console.framed("", "", title="Replay", show_header=False)
    table.columns[1].justify = "right"
    for name, value in (
        ("files", found.files),
        ("events", found.events),
        ("decisions made again", found.recomputed),
        ("decisions checked", found.checked),
        ("decisions only counted", found.counted),
        ("events lost", found.lost),
    ):
        table.add_row(name, f"{value:,}")
    console.out.print(table)
    said = "no difference" if found.difference is None else difference(found.difference)
    console.out.print(said, highlight=False, markup=False, soft_wrap=True)


def difference(found: Difference) -> str:
    """Where it is, what differs, and how."""
    where = [f"{found.file}, event {found.event}"]
    if found.sequence is not None:
        where.append(f"decision {found.sequence}")
    if found.instrument is not None:
        where.append(f"{found.instrument} {found.timeframe}")
    if found.datetime is not None:
        where.append(f"bar of {moment(found.datetime)}")
    return (
        f"{', '.join(where)}: {found.what} differs: recorded {found.recorded}, found again "
        f"{found.recomputed}"
    )


def _remarks(one: Backtest) -> str:
    """What a reader of the numbers must know."""
    remarks = [
        f"{counted(count, 'decision')} degraded, {reason}" for reason, count in one.degraded.items()
    ]
    if one.unaffordable:
        remarks.append(f"{counted(one.unaffordable, 'order')} skipped, not affordable")
    if one.used_up is not None:
        remarks.append(f"[red]capital used up on {console.day(one.used_up)} UTC[/red]")
    if one.in_sample:
        remarks.append("[red]in sample, no evidence: the weights know this stretch[/red]")
    return "; ".join(remarks)
