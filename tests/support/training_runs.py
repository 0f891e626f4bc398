"""Runs of training that are stopped, and what they leave."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from torch import Tensor

from hrm_runtime.market.bars import Bars
from hrm_train import HierarchicalReasoningModel, train
from hrm_train.learning.epochs import Progress
from hrm_train.settings import Settings


class Stopped(BaseException):
    """Raised by the host while it is told of progress: as good as a kill, but in this process."""


def stopping(after: int) -> Callable[[Progress], None]:
    """Progress that ends with the report of that number, from 1."""
    calls = []

    def on_progress(progress: Progress) -> None:
        calls.append(progress)
        if len(calls) == after:
            raise Stopped

    return on_progress


def copied(model: HierarchicalReasoningModel) -> dict[str, Tensor]:
    """The state of a model, as it is now."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


SHORT: Final = {
    "training.epochs": 2,
    "training.batch_size": 150,
    "training.ema_decay": 0.9,
    "training.exploration": 0.5,
    "training.save_minutes": 0.0,
}
ONE_CYCLE: Final = {"network.hierarchical.N_cycles": 1, "network.hierarchical.T_timesteps": 1}
"""Cheaper still, and nothing less: a run is stopped between steps, never within one."""

REPORTS: Final = 10
"""Steps and epochs that such a run tells of, at least."""


def stopped(settings: Settings, data: Path, folder: Path, after: int, **options: Any) -> None:
    """Train until the report of that number, from 1."""
    with pytest.raises(Stopped):
        train(settings, data, folder, stopping(after), **options)


DAY: Final = 86_400


def moved(bars: Bars, days: int) -> Bars:
    """The same prices, days later."""
    return Bars(bars.datetime + days * DAY, bars.open, bars.high, bars.low, bars.close)
