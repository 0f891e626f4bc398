"""The training loop: deep supervision, one-step gradient, best and last weights kept."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hrm_runtime.contract import LEAST_WINDOWS
from hrm_train.checkpoint import Checkpoint, CheckpointWriter, Epoch, load_checkpoint
from hrm_train.errors import DataInvalid, TrainingDiverged
from hrm_train.losses import segment_losses
from hrm_train.model import HierarchicalReasoningModel, Outputs, States, cycle
from hrm_train.prepared import TENSORS_SUFFIX, Prepared, prepare
from hrm_train.settings import Settings
from hrm_train.split import Split, account_statistics, chronological_split, feature_statistics
from hrm_train.windows import Windows, spread, windows

HELD_OUT_WINDOWS: Final = 512

_BETAS: Final = (0.9, 0.95)
"""Of AdamW, as published."""


@dataclass(frozen=True)
class Progress:
    """Where training stands: `step` of `steps` batches, the batch's loss, the epochs done."""

    step: int
    steps: int
    loss: float
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples: windows [B, W, F], accounts [B, C], ids [B], returns [B, 5], lots [B]."""

    features: Tensor
    account: Tensor
    instrument: Tensor
    timeframe: Tensor
    returns: Tensor
    lots: Tensor


def train(
    settings: Settings,
    data: str | Path | Iterable[str | Path],
    out: str | Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Checkpoint:
    """Train on bars files, folders of them, or one prepared tensor file; write a checkpoint folder.

    On CPU with a given number of threads, the same seed gives the same weights, bit for bit.

    Raises:
        CheckpointInvalid: `out` exists and is not empty, or cannot be written.
        BadBars, DataInvalid, SettingsInvalid: the data cannot be trained on. Nothing is written.
        TrainingDiverged: a loss is not finite. The epochs before are kept.
    """
    writer = CheckpointWriter(out)
    prepared = load_or_prepare(settings, data)
    split = chronological_split(
        prepared, settings.training.validation_fraction, settings.training.label_horizon
    )
    model = initial_model(settings, prepared, split)
    kept = held_out(settings, prepared, split)
    tensors = Tensors(prepared, settings.network.input.window)
    epochs: tuple[Epoch, ...] = ()
    for epoch in fit(model, tensors, split, on_progress):
        epochs = (*epochs, epoch)
        if len(epochs) == 1:  # nothing is written before there is something to keep
            writer.begin(settings, kept)
        best = min(epochs, key=lambda e: e.validation_loss)
        writer.save_weights(model, best=best is epoch)
        writer.describe(
            prepared.manifest,
            epochs,
            best.number,
            len(split.train),
            len(split.validation),
            split.boundary,
        )
    return load_checkpoint(out)


def load_or_prepare(settings: Settings, data: str | Path | Iterable[str | Path]) -> Prepared:
    """Training tensors from one prepared file, or from bars.

    Raises:
        DataInvalid: tensors beside other data, or made with other settings.
        BadBars, SettingsInvalid: as `prepare`.
    """
    paths = [Path(path) for path in ([data] if isinstance(data, str | Path) else data)]
    if not any(path.suffix == TENSORS_SUFFIX for path in paths):
        return prepare(settings, paths)
    if len(paths) > 1:
        raise DataInvalid("data: expected one prepared tensor file, or bars; found both or several")
    prepared = Prepared.load(paths[0])
    prepared.require(settings)
    return prepared


def initial_model(
    settings: Settings, prepared: Prepared, split: Split
) -> HierarchicalReasoningModel:
    """A model drawn from the seed, with the statistics of the training part."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.training.seed)
        model = HierarchicalReasoningModel(settings)
    for standardise, found in (
        (model.input_network.features, feature_statistics(prepared, split)),
        (model.input_network.account, account_statistics(prepared, split)),
    ):
        standardise.mean.copy_(torch.from_numpy(found.mean))
        standardise.std.copy_(torch.from_numpy(found.std))
    return model


def held_out(settings: Settings, prepared: Prepared, split: Split) -> Windows:
    """Windows of the validation part, over all sides, instruments and timeframes."""
    config = settings.network.input
    if len(split.validation) < LEAST_WINDOWS:
        raise DataInvalid(
            f"expected at least {LEAST_WINDOWS} validation samples for an artifact to prove itself "
            f"on, found {len(split.validation)}; give more bars or a larger validation_fraction"
        )
    chosen = spread(prepared, split.validation, HELD_OUT_WINDOWS, settings.training.seed)
    return windows(prepared, chosen, config.history_bars + config.window - 1)


class Tensors:
    """The prepared arrays as tensors, from which batches are gathered."""

    def __init__(self, prepared: Prepared, window: int) -> None:
        self._features = torch.from_numpy(prepared.features)
        self._row = torch.from_numpy(prepared.sample_row)
        self._span = torch.arange(1 - window, 1)
        self._account = torch.from_numpy(prepared.sample_account)
        self._instrument = torch.from_numpy(prepared.sample_instrument)
        self._timeframe = torch.from_numpy(prepared.sample_timeframe)
        self._returns = torch.from_numpy(prepared.sample_returns)
        self._lots = torch.from_numpy(prepared.sample_lots)

    def batch(self, samples: Tensor) -> Batch:
        """The given samples, int64 [B]."""
        return Batch(
            features=self._features[self._row[samples][:, None] + self._span],
            account=self._account[samples],
            instrument=self._instrument[samples],
            timeframe=self._timeframe[samples],
            returns=self._returns[samples],
            lots=self._lots[samples],
        )


def fit(
    model: HierarchicalReasoningModel,
    tensors: Tensors,
    split: Split,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Iterator[Epoch]:
    """Train in place; yields after each epoch."""
    training = model.settings.training
    optimizer = torch.optim.AdamW(
        model.parameters(), training.learning_rate, _BETAS, weight_decay=training.weight_decay
    )
    warm_up = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: min(1.0, (update + 1) / (training.warmup_steps + 1))
    )
    train_samples = torch.from_numpy(split.train)
    batches = math.ceil(len(train_samples) / training.batch_size)
    done: tuple[Epoch, ...] = ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        for number in range(1, training.epochs + 1):
            model.train()
            order = train_samples[torch.randperm(len(train_samples))]
            total = 0.0
            for index, samples in enumerate(order.split(training.batch_size)):
                batch = hide_identities(tensors.batch(samples), training.unknown_probability)
                loss = supervise(model, batch, optimizer, warm_up)
                step = (number - 1) * batches + index + 1
                _require_finite(loss, f"step {step}, epoch {number}, batch {index}")
                total += loss * len(samples)
                on_progress(Progress(step, training.epochs * batches, loss, done))
            epoch = evaluate(model, tensors, split.validation, number, total / len(order))
            _require_finite(epoch.validation_loss, f"epoch {number}, validation")
            done = (*done, epoch)
            yield epoch


def _require_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"{where}: expected a finite loss, found {loss}; lower training.learning_rate or look "
            "for extreme values in the data"
        )


def supervise(
    model: HierarchicalReasoningModel,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Deep supervision: an optimizer step per segment, states carried on without their gradient.

    Returns the loss of the last segment.
    """
    states = model.initialize_states()
    for _ in range(model.settings.training.max_segments):
        outputs, states = one_step_segment(model, batch, states)
        losses = segment_losses(outputs, batch.returns, batch.lots, model.settings)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
        schedule.step()
        states = (states[0].detach(), states[1].detach())
    return losses.total.item()


def one_step_segment(
    model: HierarchicalReasoningModel, batch: Batch, states: States
) -> tuple[Outputs, States]:
    """One segment with the one-step gradient: only the last step of L and the last of H have one.

    The gradient at the fixed point is approximated by the first term of its Neumann series, so
    memory does not grow with N x T (section 2 of the paper).
    """
    x_BSD = model.encode(batch.features, batch.account, batch.instrument, batch.timeframe)
    zH_BSD, zL_BSD = states
    with torch.no_grad():
        for n in range(model.cycles):
            if n > 0:
                zL_BSD = model.reset_l_module(zL_BSD)
            if n < model.cycles - 1:
                zH_BSD, zL_BSD, _, _ = cycle(model, zH_BSD, zL_BSD, x_BSD, model.timesteps)
        for _ in range(model.timesteps - 1):
            zL_BSD = model.low(zL_BSD, zH_BSD, x_BSD)
    zH_BSD, zL_BSD, _, _ = cycle(model, zH_BSD, zL_BSD, x_BSD, timesteps=1)
    return model.decode(zH_BSD, batch.account), (zH_BSD, zL_BSD)


def hide_identities(batch: Batch, probability: float) -> Batch:
    """Turn ids into 0 at random, so that "unknown" comes to mean something."""
    shown_instrument = torch.rand(len(batch.instrument)) >= probability
    shown_timeframe = torch.rand(len(batch.timeframe)) >= probability
    return Batch(
        features=batch.features,
        account=batch.account,
        instrument=batch.instrument * shown_instrument,
        timeframe=batch.timeframe * shown_timeframe,
        returns=batch.returns,
        lots=batch.lots,
    )


@torch.no_grad()
def evaluate(
    model: HierarchicalReasoningModel,
    tensors: Tensors,
    samples: npt.NDArray[np.int64],
    number: int,
    train_loss: float,
) -> Epoch:
    """Loss, accuracy and regret of the last segment over the given samples."""
    training = model.settings.training
    model.eval()
    loss = hits = regret = 0.0
    for chosen in torch.from_numpy(samples).split(training.batch_size):
        batch = tensors.batch(chosen)
        states: States | None = None
        for _ in range(training.max_segments):
            outputs, states = model(
                batch.features, batch.account, batch.instrument, batch.timeframe, states
            )
        losses = segment_losses(outputs, batch.returns, batch.lots, model.settings)
        loss += losses.total.item() * len(chosen)
        action = outputs["action_type"].argmax(dim=-1, keepdim=True)
        best = batch.returns.nan_to_num(nan=-torch.inf).amax(dim=-1)
        given_up = best - batch.returns.gather(-1, action).squeeze(-1)
        hits += (given_up == 0).sum().item()
        regret += given_up.sum().item()
    return Epoch(
        number=number,
        train_loss=train_loss,
        validation_loss=loss / len(samples),
        accuracy=hits / len(samples),
        regret=regret / len(samples),
    )
