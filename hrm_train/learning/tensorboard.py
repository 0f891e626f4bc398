"""Training's progress as TensorBoard scalars, where that package is installed."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hrm_train.errors import ReportRefused

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from hrm_train.learning.epochs import Progress

INTERVAL: Final = 1.0
"""Seconds over which throughput is measured, at least."""


@contextmanager
def tensorboard(folder: str | Path) -> "Iterator[Callable[[Progress], None]]":
    """What takes training's progress and writes scalars into `folder`, while the context lasts.

    By step: `loss/...`, `segments/training` where samples have halted, and once in `INTERVAL`
    `throughput/samples_per_second` and `throughput/steps_per_second`. By number of epoch:
    `epoch/...`, the fields of `Epoch`. Where there are folds, each has a run of its own, `fold-k`.

    Raises:
        ReportRefused: the package tensorboard is missing, or `folder` cannot be written, at once or
            later, which then ends the training.
    """
    folder = Path(folder)
    writer_of = _writer_class()
    _require_writable(folder)
    runs: dict[int, _Run] = {}
    with ExitStack() as stack:

        def close(writer: "SummaryWriter") -> None:
            with _told(folder):
                writer.close()

        def report(progress: "Progress") -> None:
            with _told(folder):
                if progress.fold not in runs:
                    place = folder / f"fold-{progress.fold}" if progress.folds > 1 else folder
                    runs[progress.fold] = _Run(writer := writer_of(str(place)))
                    stack.callback(close, writer)
                runs[progress.fold].report(progress)

        yield report


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What the writer's thread met with when it wrote, or what this one does."""
    try:
        yield
    except OSError as error:
        raise ReportRefused(
            f"{folder}: expected to write events there: {error}; make room, or go on with another "
            "folder or none; training is resumed from where it was saved"
        ) from error


class _Run:
    """Writes what is new in each report of one training run."""

    def __init__(self, writer: "SummaryWriter") -> None:
        self._writer = writer
        self._step = -1
        self._epochs = 0
        self._measured: tuple[float, int, int] | None = None  # when, and samples and steps by then

    def report(self, progress: "Progress") -> None:
        """Write the step, if it is a new one, and the epochs done since the last report."""
        if progress.step > self._step:
            self._report_step(progress)
        self._step = progress.step
        for epoch in progress.epochs[self._epochs :]:
            for name, value in asdict(epoch).items():
                if name != "number":
                    self._writer.add_scalar(f"epoch/{name}", value, epoch.number)
        self._epochs = len(progress.epochs)

    def _report_step(self, progress: "Progress") -> None:
        for name, loss in progress.losses.items():
            self._writer.add_scalar(f"loss/{name}", loss, progress.step)
        if not math.isnan(progress.segments):
            self._writer.add_scalar("segments/training", progress.segments, progress.step)
        now = time.perf_counter()
        if self._measured is None:
            self._measured = (now, progress.samples, progress.step)
        then, samples, steps = self._measured
        if now - then >= INTERVAL:
            for name, done in (
                ("samples", progress.samples - samples),
                ("steps", progress.step - steps),
            ):
                self._writer.add_scalar(
                    f"throughput/{name}_per_second", done / (now - then), progress.step
                )
            self._measured = (now, progress.samples, progress.step)


def _writer_class() -> "type[SummaryWriter]":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ReportRefused(
            f"reporting to TensorBoard needs {error.name}: pip install tensorboard"
        ) from error
    return SummaryWriter


def _require_writable(folder: Path) -> None:
    """Make the folder and a file in it, before any work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReportRefused(f"{folder}: expected a folder to write events to: {error}") from error
