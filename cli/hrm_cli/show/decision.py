"""Decisions: as a table beside their bars, and as `hrm predict --json` prints one."""

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.text import Text

from hrm_cli.show import console
from hrm_cli.show.bars import price
from hrm_runtime import Action, Bars, Contract, Decision
from hrm_runtime.artifact.unknown import told_unknown
from hrm_runtime.market.stamps import moment

BAR_WIDTH: Final = 12
"""Of a probability of 1."""

DECISIONS: Final = (
    "A lot is the unit an instrument trades in. Value is the best return that the network expects, "
    "in ATR: the average range of a bar, here of the last 14."
)
"""Below them, for who has not seen any."""


def decisions(made: Sequence[tuple[str, str, Bars, Decision]]) -> None:
    """Decisions beside the bars they were made at; below them what the words mean."""
    table = console.framed("at the close of", "decision", "probabilities", show_lines=True)
    for instrument, timeframe, bars, decision in made:
        reason = f"[red]{decision.reason}[/red]" if decision.degraded else str(decision.reason)
        action, _, lots = decision.order.partition(" ")
        table.add_row(
            f"[bold]{escape(instrument)}[/bold] {escape(timeframe)}\n"
            f"{moment(int(bars.datetime[-1]))}\n"
            f"close {price(bars.close[-1])}",
            f"[bold]{action}[/bold] {lots}\n"
            f"value {decision.value:+.2f} ATR\n"
            f"{reason}, {decision.latency_ms:.1f} ms",
            Probabilities(decision),
        )
    console.out.print(table)
    console.out.print(DECISIONS, style="dim", highlight=False)


def decision_fields(decision: Decision) -> dict[str, Any]:
    """A decision as `hrm predict --json` prints it."""
    return {
        "action": decision.action.name,
        "action_id": int(decision.action),
        "quantity": decision.quantity,
        "value": decision.value,
        "probabilities": decision.probabilities,
        "q_values": decision.q_values,
        "segments": decision.segments,
        "degraded": decision.degraded,
        "reason": decision.reason.value,
        "latency_ms": decision.latency_ms,
        "model_id": decision.model_id,
        "unknown": decision.unknown,
    }


def unknown(contract: Contract, instrument: str, timeframe: str) -> None:
    """A line, beside what is printed, about names that an artifact was not trained on."""
    if told := told_unknown(contract, instrument, timeframe):
        console.note(told)


class Probabilities:
    """A line for each action that has a probability, with a bar where there is room for it."""

    _TEXT = len("CLOSE_SHORT 100% ")

    def __init__(self, decision: Decision) -> None:
        self._shares = {
            action.name: share
            for action, share in zip(Action, decision.probabilities, strict=True)
            if share > 0
        }
        self._largest = max(self._shares.values(), default=0.0)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = self._TEXT + round(BAR_WIDTH * self._largest)
        return Measurement(self._TEXT, longest).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        block = "█" if console.encoding.startswith("utf") else "#"
        for name, share in self._shares.items():
            room = max(0, options.max_width - self._TEXT) / self._largest
            bar = block * round(min(BAR_WIDTH, room) * share)
            yield Text(f"{name:<11} {share:4.0%} {bar}".rstrip())
