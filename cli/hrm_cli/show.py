"""What a person sees: tables on stdout, progress and notes on stderr."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from hrm_runtime import Action, Bars, Contract, Decision
from hrm_runtime.artifact.contract import Stage
from hrm_runtime.market.series import SkippedSeries
from hrm_runtime.market.stamps import moment

if TYPE_CHECKING:
    from hrm_export.graph.build import Change
    from hrm_train.data.prepared import Series
    from hrm_train.learning.checkpoint import Epoch
    from hrm_train.learning.epochs import Progress as Step
    from hrm_train.learning.state import Position

out = Console()
err = Console(stderr=True)

WIDE: Final = 80
"""Columns of a terminal; in a narrower one tables and progress stand closer."""

BAR_WIDTH: Final = 12
"""Of a probability of 1."""

DECISIONS: Final = (
    "A lot is the unit an instrument trades in. Value is the best return that the network expects, "
    "in ATR: the average range of a bar, here of the last 14."
)
"""Below them, for who has not seen any."""

PLAIN: Final = "torch eager"
"""The reference that computes in float32."""

GATES: Final = (
    "A decision is an action, its segments and whole lots. What says passed or FAILED is held to "
    "tolerances, near ties excused; what says within or beyond is told only."
)
"""Below the ladder: what an artifact depends on."""

WHOLE: Final = Column(no_wrap=True)
"""Of progress, never shortened: where a terminal is narrow, the bar is."""

MOST_FLIPS: Final = 10
"""Decisions that differ, listed one by one."""


def note(text: str) -> None:
    """A line about what was done, however long."""
    err.print(text, highlight=False, markup=False, soft_wrap=True)


def resumed(standing: "Mapping[Path, Position | None]", epochs: int) -> None:
    """From where training that was stopped goes on, a line for each folder."""
    for folder, position in standing.items():
        if position is not None:
            note(f"{folder}: going on after {position.told(epochs)}")
        else:
            found = "nothing to resume in it" if folder.exists() else "no such folder to resume"
            note(f"{folder}: {found}; training from the beginning")


def heading(text: str) -> None:
    """The title of a part of longer work."""
    err.print(f"\n{text}", style="bold", highlight=False, markup=False, soft_wrap=True)


def day(stamp: int) -> str:
    """The day of epoch seconds, in UTC."""
    return moment(stamp).partition(" ")[0]


def framed(*headers: str, **how: Any) -> Table:
    """A table of which nothing is cut: what has too little room is folded."""
    made = Table(*headers, padding=(0, int(out.width >= WIDE)), **how)
    for column in made.columns:
        column.overflow = "fold"
    return made


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner on a terminal, a line elsewhere."""
    if not err.is_terminal:
        note(text)
    with err.status(text):
        yield


@contextmanager
def advancing(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, a line elsewhere; it is told the steps done, and all."""
    if not err.is_terminal:
        note(text)
    columns = (
        TextColumn(text),
        BarColumn(),
        MofNCompleteColumn(table_column=WHOLE),
        TimeRemainingColumn(table_column=WHOLE),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """As `advancing`, through several of them. Nothing is drawn while nothing is told."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(table_column=WHOLE),
    )
    with Progress(
        *columns, console=err, disable=not err.is_terminal, auto_refresh=False
    ) as progress:
        task, said = progress.add_task("", total=None), ""

        def on_progress(text: str, done: int, of: int) -> None:
            nonlocal said
            progress.update(task, description=text, completed=done, total=of, refresh=True)
            if not err.is_terminal and text != said:
                note(text)
            said = text

        yield on_progress


@contextmanager
def failing_threads_quiet() -> Iterator[None]:
    """No traceback of a thread that cannot write: who waits for it raises what it met with."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not isinstance(arguments.exc_value, OSError):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def silence() -> None:
    """Say nothing: one process of several speaks for all."""
    out.quiet = err.quiet = True


class Throughput(ProgressColumn):
    """Samples per second of late."""

    def render(self, task: Task) -> Text:
        """Nothing until it is known."""
        unit = " samples/s" if err.width >= WIDE else "/s"
        return Text(f"{task.speed:,.0f}{unit}" if task.speed else "")


class Losses(ProgressColumn):
    """As many of the task's `losses` as a terminal has room for beside all else."""

    BESIDE = 69
    """Columns: `fold 10 of 12`, a bar, two numbers of 8 digits, samples/s, and the time left."""

    def render(self, task: Task) -> Text:
        """The first of them, each whole."""
        parts, room = task.fields["losses"], err.width - self.BESIDE
        fitting = [", ".join(parts[:count]) for count in range(len(parts) + 1)]
        return Text([text for text in fitting if len(text) <= max(0, room)][-1])


@contextmanager
def training() -> "Iterator[Callable[[Step], None]]":
    """Samples done, throughput, time left and losses: a bar on a terminal, lines elsewhere."""
    columns = (
        TextColumn("{task.fields[fold]}"),
        BarColumn(),
        MofNCompleteColumn(table_column=WHOLE),
        Throughput(table_column=WHOLE),
        TimeRemainingColumn(table_column=WHOLE),
        Losses(table_column=WHOLE),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        bars: dict[int, TaskID] = {}
        lines = Lines()

        def on_progress(step: "Step") -> None:
            if step.fold not in bars:
                fold = f"fold {step.fold} of {step.folds}" if step.folds > 1 else "training"
                bars[step.fold] = progress.add_task("", total=step.of, fold=fold, losses=())
            progress.update(
                bars[step.fold], completed=min(step.samples, step.of), losses=_by_weight(step)
            )
            if not err.is_terminal:
                lines.show(step)

        yield on_progress


class Lines:
    """Progress for a log: a line after each epoch, and one every half minute."""

    EVERY = 30.0
    """Seconds."""

    def __init__(self) -> None:
        self._said: tuple[int, int] = (0, 0)
        self._since = self._last = time.monotonic()
        self._first = 0

    def show(self, step: "Step") -> None:
        """Say where training stands, if it is time to."""
        now, at = time.monotonic(), (step.fold, len(step.epochs))
        if at[0] != self._said[0]:
            self._since, self._first, self._said = now, step.samples, at
        if at == self._said and now - self._last < self.EVERY:
            return
        self._said, self._last = at, now
        fold = f"fold {step.fold} of {step.folds}, " if step.folds > 1 else ""
        rate = (step.samples - self._first) / max(now - self._since, 1e-9)
        speed = ""
        if rate:
            left = max(step.of - step.samples, 0) / rate / 60
            speed = f", {rate:,.0f} samples/s, {left:.0f} min left"
        note(f"{fold}{min(1.0, step.samples / step.of):.0%}, {_losses(step)}{speed}")


def _losses(step: "Step") -> str:
    return "; ".join([", ".join(_named(step.losses)), *_validated(step)])


def _by_weight(step: "Step") -> list[str]:
    """The losses, those first that say most: all together, of the last epoch, and each alone."""
    *each, total = _named(step.losses)
    return [total, *_validated(step), *each]


def _named(losses: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:.3f}" for name, value in losses.items()]


def _validated(step: "Step") -> list[str]:
    return [f"epoch {one.number}: {one.validation_loss:.3f}" for one in step.epochs[-1:]]


def series(found: "Sequence[Series]") -> None:
    """What was read, and what was mended or skipped."""
    table = framed("series", "bars", "duplicates", "out of order", "samples", title="Data")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found:
        table.add_row(
            escape(f"{one.instrument}_{one.timeframe}"),
            f"{one.bars:,}",
            str(one.duplicates),
            str(one.disordered),
            f"skipped: {one.skipped}" if one.skipped else f"{one.samples:,}",
        )
    out.print(table)


def skipped(found: Sequence[SkippedSeries]) -> None:
    """The series of the given bars that nothing could be done with, and why: last of all."""
    for one in found:
        out.print(f"skipped {one}", highlight=False, markup=False, soft_wrap=True)


def epochs(done: "Sequence[Epoch]", best: int) -> None:
    """One line per epoch."""
    table = framed(
        "epoch", "loss", "validation", "best action", "regret (ATR)", "segments", title="Training"
    )
    for one in done:
        table.add_row(
            str(one.number),
            f"{one.train_loss:.4f}",
            f"{one.validation_loss:.4f}",
            f"{one.accuracy:.1%}",
            f"{one.regret:.3f}",
            f"{one.segments:.2f}",
            style="bold" if one.number == best else "",
        )
    out.print(table)


def changes(made: Sequence["Change"]) -> None:
    """What each pass over the graph did."""
    table = framed("pass over the graph", "changes")
    for change in made:
        table.add_row(change.name, f"{change.count:,}")
    out.print(table)


def parity(stages: Sequence[Stage]) -> None:
    """The ladder, a line for each stage; then how agreement depends on the gap, and what failed."""
    table = framed("stage", "against", "windows", "largest difference", "decisions equal", "")
    for stage in stages:
        verdict = "[green]passed[/green]" if stage.passed else "[red]FAILED[/red]"
        table.add_row(
            stage.stage,
            stage.reference,
            f"{stage.windows:,}",
            f"{stage.max_rel:.1e}",
            f"{stage.action_agreement:.2%}",
            verdict if stage.gated else f"[dim]{'within' if stage.passed else 'beyond'}[/dim]",
        )
    out.print(table)
    out.print(GATES, style="dim", highlight=False)
    twins = [stage.reference for stage in stages if stage.reference.startswith(f"{PLAIN}, ")]
    for stage in stages:
        _bands(stage)
        if stage.flips and stage.reference == PLAIN and stage.stage == "artifact" and twins:
            out.print(_fewer_bits(stage, twins[0]), style="dim", highlight=False)
        for name, output in stage.outputs.items():
            if output.beyond:
                out.print(
                    f"  {stage.stage} against {stage.reference}: [red]{name}[/red] differs by "
                    f"{output.max_rel:.1e}, tolerance {output.tolerance:.0e}, in {output.beyond:,} "
                    "windows beyond it"
                )
        for flip in stage.flips[:MOST_FLIPS]:
            out.print(f"  window {flip.window}: {flip.what} differs, top-two gap {flip.gap:.2e}")
        if len(stage.flips) > MOST_FLIPS:
            out.print(f"  and {len(stage.flips) - MOST_FLIPS:,} more")


def _fewer_bits(stage: Stage, twin: str) -> str:
    """Why an artifact of fewer bits decides otherwise than the float32 network, and what to do."""
    what = Counter(flip.what for flip in stage.flips)
    if stage.gated:
        held = (
            "Actions of which the network is sure, by a gap above 0.2, are held to it, no lots: "
            f"what was trained and is judged is {twin}."
        )
    elif "quantised" in twin:
        held = (
            "It is told only. hrm train --quantise --init-from CHECKPOINT trains the network as "
            "int8 computes, so that what is deployed is what was trained and is judged."
        )
    else:
        held = "It is told only."
    return (
        f"{stage.stage} against {stage.reference}: {what['action']:,} of {stage.windows:,} differ "
        f"in the action, {what['quantity']:,} in lots alone, {what['segments']:,} in segments. "
        "This is what fewer bits do: near ties turn, as the gaps show, and lots are whole numbers "
        f"that a small change moves. {held}"
    )


def _bands(stage: Stage) -> None:
    """Agreement by gap, where not all decisions agree."""
    if not stage.flips:
        return
    table = framed(
        "gap from",
        "windows",
        "same action",
        "same decision",
        title=f"{stage.stage} against {stage.reference}, by the latter's top-two gap",
    )
    for band in stage.by_gap:
        shares = (
            f"{count / band.windows:.2%}" if band.windows else ""
            for count in (band.same_action, band.same_decision)
        )
        table.add_row(f"{band.above:g}", f"{band.windows:,}", *shares)
    out.print(table)


def contract(promised: Contract) -> None:
    """The contract on one screen, and the id that `load` takes on a line of its own."""
    graph, features = promised.graph, promised.features
    table = framed("", "", title=escape(promised.name), show_header=False)
    trading = ", ".join(f"{name} {value:g}" for name, value in vars(promised.trading).items())
    for name, value in (
        ("created", promised.created),
        ("trained until", moment(promised.provenance.trained_until)),
        ("graph", f"{graph.cycles} cycles x {graph.timesteps} timesteps, {graph.precision}"),
        ("states", f"{graph.tokens} tokens, H {graph.h_dim} wide, L {graph.l_dim} wide"),
        ("L reset between cycles", "yes" if graph.reset_l else "no"),
        ("segments, at most", promised.max_segments),
        ("bars behind one decision", promised.bars_needed),
        ("features", f"{len(features.names)}, definition {features.version}"),
        ("account", ", ".join(promised.account)),
        ("actions", ", ".join(f"{number} {name}" for name, number in promised.actions.items())),
        ("quantity", f"{promised.quantity.min:g} to {promised.quantity.max:g} lots"),
        ("instruments", ", ".join(promised.instruments)),
        ("timeframes", ", ".join(promised.timeframes)),
        ("unknown instruments", "allowed" if promised.allow_unknown_instrument else "refused"),
        ("unknown timeframes", "allowed" if promised.allow_unknown_timeframe else "refused"),
        ("trading", trading),
        ("versions", ", ".join(f"{k} {v}" for k, v in promised.provenance.versions.items())),
    ):
        table.add_row(name, escape(str(value)))
    out.print(table)
    for name, value in (
        ("id", promised.id),
        ("checkpoint", promised.provenance.checkpoint_sha256),
    ):
        out.print(f"{name:<11} {value}", highlight=False, soft_wrap=True)  # whole, to be copied
    parity(promised.parity)


def decisions(made: Sequence[tuple[str, str, Bars, Decision]]) -> None:
    """Decisions beside the bars they were made at; below them what the words mean."""
    table = framed("at the close of", "decision", "probabilities", show_lines=True)
    for instrument, timeframe, bars, decision in made:
        reason = f"[red]{decision.reason}[/red]" if decision.degraded else str(decision.reason)
        action, _, lots = decision.order.partition(" ")
        table.add_row(
            f"[bold]{escape(instrument)}[/bold] {escape(timeframe)}\n"
            f"{moment(int(bars.datetime[-1]))}\n"
            f"close {bars.close[-1]:,.2f}",
            f"[bold]{action}[/bold] {lots}\n"
            f"value {decision.value:+.2f} ATR\n"
            f"{reason}, {decision.latency_ms:.1f} ms",
            Probabilities(decision),
        )
    out.print(table)
    out.print(DECISIONS, style="dim", highlight=False)


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
    }


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
