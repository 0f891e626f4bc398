"""The training loop: what is trained, when it is judged, and what is kept."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from hrm_runtime.artifact.contract import LEAST_WINDOWS
from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_train.data.prepared import Prepared, load_or_prepare
from hrm_train.data.split import (
    Fold,
    Split,
    account_statistics,
    chronological_split,
    feature_statistics,
    judged_samples,
    walk_forward,
)
from hrm_train.data.windows import Windows, spread, windows
from hrm_train.errors import (
    CheckpointInvalid,
    DataInvalid,
    SettingsInvalid,
    TrainingDiverged,
    TrainingStopped,
)
from hrm_train.learning.act import Order
from hrm_train.learning.checkpoint import (
    FORMAT_VERSION,
    LAST,
    MANIFEST,
    Checkpoint,
    CheckpointWriter,
    Description,
    Epoch,
    fold_name,
    load_checkpoint,
    read_description,
)
from hrm_train.learning.devices import (
    HERE,
    Where,
    anywhere,
    computing_with,
    is_first_process,
    is_gpu,
    open_fabric,
    own_random_numbers,
    reproducible,
    summed,
)
from hrm_train.learning.extension import extended
from hrm_train.learning.losses import answer_losses, chosen_regrets
from hrm_train.learning.run import Run, Tensors
from hrm_train.learning.state import Origin, Position, State, require_same
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.scales import calibrate
from hrm_train.network.serving import served
from hrm_train.settings import Settings

HELD_OUT_WINDOWS: Final = 512
CALIBRATION_WINDOWS: Final = 512


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


def train(
    settings: Settings,
    data: str | Path | Iterable[str | Path],
    out: str | Path,
    on_progress: OnProgress = lambda _: None,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    quantise: bool = False,
    where: Where = HERE,
    stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    """Train on bars files, folders of them, or one prepared tensor file; write a checkpoint folder.

    On CPU the same settings give the same weights, bit for bit, however often the run was killed
    and resumed and whatever else the machine does: the number of threads follows from them too. On
    a GPU that is so where `training.deterministic` is set.

    Args:
        settings: what to train, and how.
        data: what to train on.
        out: the folder to write.
        on_progress: called after every step, and again after the last one of an epoch.
        resume: go on where a run into `out` was stopped, at any moment; start where none was.
        init_from: a checkpoint whose weights, statistics and vocabulary to go on from; names that
            the data brings are added to the latter. One that is quantised stays so, with its
            scales.
        quantise: switch quantisers on, calibrated on training samples, before training goes on
            from `init_from`.
        where: devices.
        stop: asked before anything is written and after every step and epoch, in every process;
            where it says so in any of them, where training stands is saved and training ends.

    Raises:
        CheckpointInvalid: `out` holds something else or cannot be written, what it holds was begun
            with other settings or data, or `init_from` cannot be read.
        BadBars, DataInvalid, SettingsInvalid: the data cannot be trained on, or there is nothing to
            quantise. Nothing is written.
        DeviceMissing: a device was asked for that is not there. Nothing is written.
        TrainingDiverged: a loss is not finite. What was saved before is kept.
        TrainingStopped: `stop` said so. `resume` goes on from there.
    """
    _require_source(quantise, init_from)
    settings = settings.with_threads()
    fabric, writer = _devices(settings, where), _writer(out, resume)
    source = load_checkpoint(init_from) if init_from is not None else None
    known = None if source is None else source.description.vocabulary
    prepared = load_or_prepare(settings, data, known=known)
    training = settings.training
    split = chronological_split(prepared, training.validation_fraction, training.label_horizon)
    if source is not None:
        seen = source.description.judged_from
        unseen = judged_samples(prepared, seen, None, training.label_horizon)
        split = replace(
            split,
            boundary=max(split.boundary, seen),
            validation=np.intersect1d(split.validation, unseen),
        )
        if not len(split.validation):
            raise DataInvalid(
                f"{init_from}: expected bars to validate on that are later than what this "
                "checkpoint knows, found none; give later bars"
            )
    plan = Plan(settings, prepared, split, split.boundary, None, source, quantise)
    fabric.launch()
    return _train(fabric, plan, writer, resume, on_progress, stop)


def train_folds(
    settings: Settings,
    data: str | Path | Iterable[str | Path],
    out: str | Path,
    folds: int,
    on_progress: OnProgress = lambda _: None,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    quantise: bool = False,
    where: Where = HERE,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Checkpoint, ...]:
    """Train a checkpoint `out`/fold-k for each fold of a walk forward, from the same seed.

    Fold k knows the first k of `folds` + 1 parts of the time span, and is to be judged on the next
    (`hrm_train.judging.evaluation`).

    Args:
        init_from: the folder of a walk over the same parts; fold k goes on from its fold-k.
        Others: as `train`.

    Raises:
        DataInvalid: a fold has nothing to train on, to validate on or to be judged on.
        CheckpointInvalid: a fold of `init_from` was trained, or is judged, on other parts.
        Others: as `train`.
    """
    _require_source(quantise, init_from)
    settings = settings.with_threads()
    fabric = _devices(settings, where)
    writers = [_writer(Path(out) / fold_name(number), resume) for number in range(1, folds + 1)]
    known = None
    if init_from is not None:  # every fold knows the same names
        known = read_description(Path(init_from) / fold_name(1))[1].vocabulary
    prepared = load_or_prepare(settings, data, known=known)
    training = settings.training
    plans = []
    for fold in walk_forward(prepared, folds, training.validation_fraction, training.label_horizon):
        source = None if init_from is None else _fold_of(init_from, fold)
        plans.append(Plan(settings, prepared, fold.split, fold.start, fold.end, source, quantise))
    fabric.launch()
    trained = []
    for number, (plan, writer) in enumerate(zip(plans, writers, strict=True), start=1):

        def on_fold(progress: Progress, number: int = number) -> None:
            on_progress(replace(progress, fold=number, folds=folds))

        trained.append(_train(fabric, plan, writer, resume, on_fold, stop))
    return tuple(trained)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run is a function of: settings, tensors, their split, and where it starts from.

    `judged_from` and `judged_until` as in `checkpoint.Description`. The boundary of the split is
    not before what the source knew.
    """

    settings: Settings
    prepared: Prepared
    split: Split
    judged_from: int
    judged_until: int | None
    source: Checkpoint | None
    quantise: bool

    @property
    def quantised(self) -> bool:
        """Whether quantisers are on: a source that has them keeps them."""
        return self.quantise or (self.source is not None and self.source.model.quantised)

    @cached_property  # it reads all of the tensors
    def origin(self) -> Origin:
        """The same, to be written down."""
        return Origin(
            settings=self.settings.model_dump(mode="json"),
            data=self.prepared.digest(),
            boundary=self.split.boundary,
            judged_from=self.judged_from,
            judged_until=self.judged_until,
            initialized_from=None if self.source is None else self.source.sha256,
            quantised=self.quantised,
        )


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
    return windows(prepared, chosen, config.bars_needed)


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


def _require_source(quantise: bool, init_from: str | Path | None) -> None:
    if quantise and init_from is None:
        raise SettingsInvalid(
            "quantise: expected a checkpoint to go on from, found none; train one first, then go "
            "on from it with --init-from"
        )


def _fold_of(walk: str | Path, fold: Fold) -> Checkpoint:
    """The checkpoint of a fold in the folder of an earlier walk over the same parts."""
    folder = Path(walk) / fold_name(fold.number)
    source = load_checkpoint(folder)
    known = source.description
    found = (known.boundary, known.judged_from, known.judged_until)
    if found != (fold.split.boundary, fold.start, fold.end):
        raise CheckpointInvalid(
            f"{folder}: expected a fold that knows and is judged on the same parts of time, "
            f"{(fold.split.boundary, fold.start, fold.end)}, found {found}; give the same data, "
            "folds, label_horizon and validation_fraction as it was trained with"
        )
    return source


def _devices(settings: Settings, where: Where) -> Fabric:
    training = settings.training
    fabric = open_fabric(where, training.precision)
    if training.batch_size % fabric.world_size:
        raise SettingsInvalid(
            "training.batch_size: expected a multiple of the number of processes, found "
            f"{training.batch_size} for {fabric.world_size}"
        )
    return fabric


def _writer(out: str | Path, resume: bool) -> CheckpointWriter:
    # the first process may have begun to write when another one starts
    return CheckpointWriter(out, resume or not is_first_process())


def _train(
    fabric: Fabric,
    plan: Plan,
    writer: CheckpointWriter,
    resume: bool,
    on_progress: OnProgress,
    stop: Callable[[], bool],
) -> Checkpoint:
    settings, split = plan.settings, plan.split
    training, origin = settings.training, plan.origin
    slots = min(training.batch_size, len(split.train))
    slots -= slots % fabric.world_size
    if not slots:
        raise DataInvalid(
            f"expected at least {fabric.world_size} training samples, one per process, found "
            f"{len(split.train)}; train in fewer processes or give more bars"
        )
    state = _saved(writer.folder, origin) if resume else None
    resumed = torch.tensor(float(state is not None), device=fabric.device)
    if summed(fabric, resumed.clone()) != fabric.world_size * resumed:
        raise CheckpointInvalid(
            f"{writer.folder}: expected a folder that all machines share, found a state of "
            "training on some of them only"
        )
    if plan.source is None:
        model = initial_model(settings, plan.prepared, split)
        prepared, untrained = plan.prepared, _untrained(plan.prepared, split.train)
    else:
        series = plan.prepared.manifest.series
        model, vocabulary = extended(
            plan.source.model,
            plan.source.description.vocabulary,
            settings,
            [(one.instrument, one.timeframe) for one in series if one.skipped is None],
        )
        prepared = plan.prepared.renumbered(vocabulary)
        before = plan.source.description.vocabulary
        instruments, timeframes = _untrained(prepared, split.train)
        untrained = (  # what the source knew it was trained on
            instruments - {one.id for one in before.instruments.values()},
            timeframes - {one.id for one in before.timeframes.values()},
        )
    kept = held_out(settings, prepared, split)
    (stopped,) = anywhere(fabric, stop())  # nothing is written before all have read
    if stopped:
        raise TrainingStopped(f"{writer.folder} is as it was")
    with (
        computing_with(settings.threads),
        own_random_numbers(fabric.device),
        reproducible(training.deterministic),
    ):
        if plan.quantised and not model.quantised and state is None:  # which has its own scales
            _quantise(model.to(fabric.device), prepared, split)
        run = Run(fabric, model, prepared, Order(split.train, slots, training), untrained)
        position = Position(step=0, epochs=(), loss_sum=0.0, loss_steps=0)
        if state is not None:
            run.restore(state.tensors, state.position.step)
            position = state.position
        else:
            if fabric.is_global_zero:
                writer.begin(settings, kept)
            _save(writer, run, origin, position)
        if training.compile and is_gpu(fabric):
            run.compile()
        _train_on(run, plan, prepared, position, writer, on_progress, stop)
    fabric.barrier()
    return load_checkpoint(writer.folder)


def _train_on(
    run: Run,
    plan: Plan,
    prepared: Prepared,
    position: Position,
    writer: CheckpointWriter,
    on_progress: OnProgress,
    stop: Callable[[], bool],
) -> None:
    """Train from `position` to the end, and keep in the folder what is to be kept."""
    fabric, training = run.fabric, plan.settings.training
    saved = time.monotonic()
    for reached in fit(run, plan.split.validation, position, on_progress):
        ended = len(reached.epochs) > len(position.epochs)
        position = reached
        if ended and fabric.is_global_zero:
            _describe(writer, plan, prepared, run, position.epochs)
        due = time.monotonic() - saved >= 60.0 * training.save_minutes
        due, stopped = anywhere(fabric, due, stop())
        if ended or due or stopped:
            _save(writer, run, plan.origin, position)
            saved = time.monotonic()
            _tidy(writer, run, position.epochs)
        if stopped:
            fabric.barrier()  # no process ends before it is saved
            raise TrainingStopped(
                f"{writer.folder} holds training up to {position.told(training.epochs)}"
            )
    _tidy(writer, run, position.epochs)  # a kill may have come between saving and this


def _quantise(model: HierarchicalReasoningModel, prepared: Prepared, split: Split) -> None:
    """Switch quantisers on, calibrated on samples from all over the training part."""
    settings = model.settings
    chosen = spread(prepared, split.train, CALIBRATION_WINDOWS, settings.training.seed)
    tensors = Tensors(prepared, settings.network.input.window, model.device)
    model.quantise(calibrate(model, *tensors.inputs(torch.from_numpy(chosen).to(model.device))))


def _untrained(prepared: Prepared, train: npt.NDArray[np.int64]) -> tuple[set[int], set[int]]:
    """The ids of instruments and of timeframes that no training sample has."""
    vocabulary = prepared.manifest.vocabulary
    return (
        {one.id for one in vocabulary.instruments.values()}
        - {0, *prepared.sample_instrument[train].tolist()},
        {one.id for one in vocabulary.timeframes.values()}
        - {0, *prepared.sample_timeframe[train].tolist()},
    )


def standing(out: str | Path, folds: int | None = None) -> dict[Path, Position | None]:
    """Where training into `out`, or into each of its folds, was stopped; None where it never began.

    Raises:
        CheckpointInvalid: a folder holds something else, as `train` with `resume`, or its state of
            training cannot be read.
    """
    out = Path(out)
    folders = [out] if folds is None else [out / fold_name(k) for k in range(1, folds + 1)]
    files = {
        folder: _state_file(CheckpointWriter(folder, resume=True).folder) for folder in folders
    }
    return {
        folder: None if file is None else State.position_in(file) for folder, file in files.items()
    }


def _state_file(folder: Path) -> Path | None:
    """The state of the training in `folder`; None where it wrote nothing to go on from."""
    file = folder / LAST
    if file.exists():
        return file
    if (folder / MANIFEST).exists():
        raise CheckpointInvalid(
            f"{file}: expected a state of training to resume, found a checkpoint without one; "
            "choose another folder, and go on from its weights with --init-from"
        )
    return None


def _saved(folder: Path, origin: Origin) -> State | None:
    """Where the training in `folder` was stopped, held to what is to be resumed."""
    file = _state_file(folder)
    if file is None:
        return None
    state = State.load(file)
    require_same(state.origin, origin, file)
    return state


def _save(writer: CheckpointWriter, run: Run, origin: Origin, position: Position) -> None:
    state = State(origin, position, run.capture())  # by all processes
    if run.fabric.is_global_zero:
        writer.write(LAST, state.save)


def _tidy(writer: CheckpointWriter, run: Run, epochs: tuple[Epoch, ...]) -> None:
    if epochs and run.fabric.is_global_zero:
        writer.keep_only(_best(epochs).number)


def _best(epochs: tuple[Epoch, ...]) -> Epoch:
    return min(epochs, key=lambda epoch: epoch.validation_loss)


def _describe(
    writer: CheckpointWriter, plan: Plan, prepared: Prepared, run: Run, epochs: tuple[Epoch, ...]
) -> None:
    best = _best(epochs)
    writer.describe(
        Description(
            format_version=FORMAT_VERSION,
            digest="",
            feature_version=FEATURE_VERSION,
            features=FEATURES,
            account=ACCOUNT,
            vocabulary=prepared.manifest.vocabulary,
            series=prepared.manifest.series,
            train_samples=len(plan.split.train),
            validation_samples=len(plan.split.validation),
            boundary=plan.split.boundary,
            judged_from=plan.judged_from,
            judged_until=plan.judged_until,
            initialized_from=plan.origin.initialized_from,
            quantised=plan.quantised,
            best_epoch=best.number,
            epochs=epochs,
            files={},
        ),
        run.average.model if best is epochs[-1] else None,
    )
