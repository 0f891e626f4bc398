"""Events of training, told to logging by the first of its processes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from hrm_train.errors import TrainingStopped
from hrm_train.learning.saving import Saver, best_of
from hrm_train.learning.state import Position
from hrm_train.log import log


class Events:
    """Those of one training, each with the folder that it writes as `out`."""

    def __init__(self, saver: Saver) -> None:
        self._saver = saver

    def begun(self, position: Position, resumed: bool) -> None:
        """Where training begins or goes on, and what it is."""
        plan, fabric = self._saver.plan, self._saver.run.fabric
        self._tell(
            "training resumed" if resumed else "training began",
            step=position.step,
            epochs_done=len(position.epochs),
            epochs=plan.settings.training.epochs,
            train_samples=len(plan.split.train),
            validation_samples=len(plan.split.validation),
            device=str(fabric.device),
            processes=fabric.world_size,
            initialized_from=plan.origin.initialized_from,
            quantised=plan.quantised,
        )

    def epoch(self, position: Position) -> None:
        """What the last epoch came to, once it is saved."""
        self._tell("epoch", step=position.step, **asdict(position.epochs[-1]), **_best(position))

    def saved(self, position: Position) -> None:
        """That training may be resumed from here."""
        self._tell("saved", logging.DEBUG, step=position.step, epochs_done=len(position.epochs))

    def stopped(self, position: Position) -> None:
        """Where training was asked to stop."""
        self._tell("training stopped", step=position.step, epochs_done=len(position.epochs))

    def done(self, position: Position) -> None:
        """That the checkpoint is whole."""
        self._tell("training done", step=position.step, **_best(position))

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Tell what ends training otherwise."""
        try:
            yield
        except TrainingStopped:
            raise
        except Exception as error:
            self._tell("training failed", logging.ERROR, kind=type(error).__name__, why=str(error))
            raise

    def _tell(self, event: str, level: int = logging.INFO, **fields: object) -> None:
        if self._saver.run.fabric.is_global_zero:
            log(level, event, out=str(self._saver.writer.folder), **fields)


def _best(position: Position) -> dict[str, int]:
    return {"best_epoch": best_of(position.epochs).number}
