"""Step after step and epoch after epoch, and how an epoch is judged."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from hrm_train.errors import TrainingDiverged
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.devices import summed
from hrm_train.learning.losses import answer_losses, chosen_regrets
from hrm_train.learning.run import Run, Tensors
from hrm_train.learning.state import Position
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.serving import served


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training stands.

    Attributes:
        step: optimizer steps done, over all segments.
        samples, of: samples started, and to be started in all.
        losses: averages over the batch by `segment.LOSSES`.
        segments: average number of the samples that halted since the last report; NaN if none.
        epochs: those done.
        fold, folds: which walk-forward fold is trained; of 1, where there is no other.
    """

    step: int
    samples: int
    of: int
    losses: dict[str, float]
    segments: float
    epochs: tuple[Epoch, ...]
    fold: int = 1
    folds: int = 1


OnProgress = Callable[[Progress], None]


def fit(
    run: Run, validation: npt.NDArray[np.int64], position: Position, on_progress: OnProgress
) -> Iterator[Position]:
    """Train `run` on from `position`; yields after every step, and after every epoch.

    An epoch is over when as many samples were started as it has and the next is due.
    """
    training = run.model.settings.training
    many = len(run.order.samples)
    latest: Progress | None = None
    while len(position.epochs) < training.epochs:
        number = len(position.epochs) + 1
        if run.waiting and run.started >= number * many:
            loss = position.loss_sum / position.loss_steps
            run.share_unknown()
            epoch = evaluate(run.fabric, run.average.model, run.tensors, validation, number, loss)
            position = replace(
                position, epochs=(*position.epochs, epoch), loss_sum=0.0, loss_steps=0
            )
            if latest is not None:
                on_progress(replace(latest, epochs=position.epochs))
        else:
            step = run.advance(
                f"step {position.step + 1}, epoch {number}, batch {position.loss_steps + 1} of it"
            )
            position = replace(
                position,
                step=run.steps,
                loss_sum=position.loss_sum + step.losses["total"],
                loss_steps=position.loss_steps + 1,
            )
            latest = Progress(
                step=position.step,
                samples=run.started,
                of=training.epochs * many,
                losses=step.losses,
                segments=step.segments / step.finished if step.finished else math.nan,
                epochs=position.epochs,
            )
            on_progress(latest)
        yield position


@torch.inference_mode()
def evaluate(
    fabric: Fabric,
    model: HierarchicalReasoningModel,
    tensors: Tensors,
    samples: npt.NDArray[np.int64],
    number: int,
    train_loss: float,
) -> Epoch:
    """Loss, accuracy, regret and segments of what would be served for the given samples.

    Raises:
        TrainingDiverged: one of them is not finite.
    """
    training = model.settings.training
    model.eval()
    sums = torch.zeros(5, dtype=torch.float64, device=tensors.device)
    own = torch.from_numpy(samples[fabric.global_rank :: fabric.world_size]).to(tensors.device)
    for chosen in own.split(training.batch_size) if len(own) else ():
        with torch.compiler.set_stance("force_eager"):  # its batches are of many sizes
            outputs, segments_B = served(model, *tensors.inputs(chosen))
        returns_B5, lots_B = tensors.labels(chosen)
        loss = answer_losses(outputs, returns_B5, lots_B, training).total
        regret_B = chosen_regrets(outputs["action_type"], returns_B5)
        sums += torch.stack(
            (
                loss.double() * len(chosen),
                (regret_B == 0).double().sum(),
                regret_B.double().sum(),
                segments_B.double().sum(),
                torch.tensor(len(chosen), dtype=torch.float64, device=tensors.device),
            )
        )
    total = summed(fabric, sums)
    loss, accuracy, regret, segments = found = (total[:4] / total[4]).tolist()
    if not all(map(math.isfinite, found)):
        raise TrainingDiverged(
            f"validation of epoch {number}: expected a finite loss and regret, found {loss:g} and "
            f"{regret:g}; prepare the training tensors again, or lower training.learning_rate"
        )
    return Epoch(
        number=number,
        train_loss=train_loss,
        validation_loss=loss,
        accuracy=accuracy,
        regret=regret,
        segments=segments,
    )
