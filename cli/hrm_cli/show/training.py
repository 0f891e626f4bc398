"""A training: from where it goes on, how far it is, and what its epochs came to."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
from rich.text import Text

from hrm_cli.show import console
from hrm_cli.show.progress import WHOLE

if TYPE_CHECKING:
    from hrm_train.learning.checkpoint import Epoch
    from hrm_train.learning.epochs import Progress as Step
    from hrm_train.learning.state import Position


def resumed(standing: "Mapping[Path, Position | None]", epochs: int) -> None:
    """From where training that was stopped goes on, a line for each folder."""
    for folder, position in standing.items():
        if position is not None:
            console.note(f"{folder}: going on after {position.told(epochs)}")
        else:
            found = "nothing to resume in it" if folder.exists() else "no such folder to resume"
            console.note(f"{folder}: {found}; training from the beginning")


class Throughput(ProgressColumn):
    """Samples per second of late."""

    def render(self, task: Task) -> Text:
        """Nothing until it is known."""
        unit = " samples/s" if console.err.width >= console.WIDE else "/s"
        return Text(f"{task.speed:,.0f}{unit}" if task.speed else "")


class Losses(ProgressColumn):
    """As many of the task's `losses` as a terminal has room for beside all else."""

    BESIDE = 69
    """Columns: `fold 10 of 12`, a bar, two numbers of 8 digits, samples/s, and the time left."""

    def render(self, task: Task) -> Text:
        """The first of them, each whole."""
        parts, room = task.fields["losses"], console.err.width - self.BESIDE
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
    with Progress(*columns, console=console.err, disable=not console.err.is_terminal) as progress:
        bars: dict[int, TaskID] = {}
        lines = Lines()

        def on_progress(step: "Step") -> None:
            if step.fold not in bars:
                fold = f"fold {step.fold} of {step.folds}" if step.folds > 1 else "training"
                bars[step.fold] = progress.add_task("", total=step.of, fold=fold, losses=())
            progress.update(
                bars[step.fold], completed=min(step.samples, step.of), losses=_by_weight(step)
            )
            if not console.err.is_terminal:
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
        console.note(f"{fold}{min(1.0, step.samples / step.of):.0%}, {_losses(step)}{speed}")


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


def epochs(done: "Sequence[Epoch]", best: int) -> None:
    """One line per epoch."""
    table = console.framed(
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
    console.out.print(table)
