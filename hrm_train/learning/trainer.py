"""Training: data in, a checkpoint folder or one of each fold out."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric

from hrm_train.data.preparation import load_or_prepare
from hrm_train.data.split import chronological_split, walk_forward
from hrm_train.errors import CheckpointInvalid, DataInvalid, SettingsInvalid, TrainingStopped
from hrm_train.learning.act import Order
from hrm_train.learning.checkpoint import (
    Checkpoint,
    CheckpointWriter,
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
from hrm_train.learning.epochs import OnProgress, Progress, fit
from hrm_train.learning.events import Events
from hrm_train.learning.plan import Plan, fold_source, held_out, switch_quantisers_on, unseen_by
from hrm_train.learning.run import Run
from hrm_train.learning.saving import Saver, saved_state, state_file
from hrm_train.learning.state import Position, State
from hrm_train.settings import Settings


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
        split = unseen_by(source, str(init_from), prepared, split, training.label_horizon)
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
    (`hrm_train.judging.evaluation`). What is not listed here is taken, and raised, as by `train`.

    Args:
        init_from: the folder of a walk over the same parts; fold k goes on from its fold-k.

    Raises:
        DataInvalid: a fold has nothing to train on, to validate on or to be judged on.
        CheckpointInvalid: a fold of `init_from` was trained, or is judged, on other parts.
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
        source = None if init_from is None else fold_source(init_from, fold)
        plans.append(Plan(settings, prepared, fold.split, fold.start, fold.end, source, quantise))
    fabric.launch()
    trained = []
    for number, (plan, writer) in enumerate(zip(plans, writers, strict=True), start=1):

        def on_fold(progress: Progress, number: int = number) -> None:
            on_progress(replace(progress, fold=number, folds=folds))

        trained.append(_train(fabric, plan, writer, resume, on_fold, stop))
    return tuple(trained)


def _require_source(quantise: bool, init_from: str | Path | None) -> None:
    if quantise and init_from is None:
        raise SettingsInvalid(
            "quantise: expected a checkpoint to go on from, found none; train one first, then go "
            "on from it with --init-from"
        )


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
    training, train = plan.settings.training, plan.split.train
    slots = _slots(fabric, training.batch_size, len(train))
    state = saved_state(writer.folder, plan.origin) if resume else None
    _require_shared(fabric, writer.folder, state)
    start = plan.start()
    kept = held_out(plan.settings, start.prepared, plan.split)
    (stopped,) = anywhere(fabric, stop())  # nothing is written before all have read
    if stopped:
        raise TrainingStopped(f"{writer.folder} is as it was")
    with (
        computing_with(plan.settings.threads),
        own_random_numbers(fabric.device),
        reproducible(training.deterministic),
    ):
        if plan.quantised and not start.model.quantised and state is None:  # which has own scales
            switch_quantisers_on(start.model.to(fabric.device), start.prepared, plan.split)
        order = Order(train, slots, training)
        run = Run(fabric, start.model, start.prepared, order, start.untrained)
        saver = Saver(writer, plan, start.prepared, run)
        events = Events(saver)
        position = Position(step=0, epochs=(), loss_sum=0.0, loss_steps=0)
        if state is not None:
            run.restore(state.tensors, state.position.step)
            position = state.position
        else:
            if fabric.is_global_zero:
                writer.begin(plan.settings, kept)
            saver.save(position)
        events.begun(position, resumed=state is not None)
        if training.compile and is_gpu(fabric):
            run.compile()
        with events.failing():
            position = _train_on(saver, events, position, on_progress, stop)
        events.done(position)
    fabric.barrier()
    return load_checkpoint(writer.folder)


def _slots(fabric: Fabric, batch_size: int, samples: int) -> int:
    """Samples in work at once, the same number in every process."""
    slots = min(batch_size, samples)
    slots -= slots % fabric.world_size
    if not slots:
        raise DataInvalid(
            f"expected at least {fabric.world_size} training samples, one per process, found "
            f"{samples}; train in fewer processes or give more bars"
        )
    return slots


def _require_shared(fabric: Fabric, folder: Path, state: State | None) -> None:
    """Hold what this process found in the folder to what the others did."""
    found = torch.tensor(float(state is not None), device=fabric.device)
    if summed(fabric, found.clone()) != fabric.world_size * found:
        raise CheckpointInvalid(
            f"{folder}: expected a folder that all machines share, found a state of "
            "training on some of them only"
        )


def _train_on(
    saver: Saver,
    events: Events,
    position: Position,
    on_progress: OnProgress,
    stop: Callable[[], bool],
) -> Position:
    """Train from `position` to the end, which is returned, and keep what is to be kept."""
    run, plan = saver.run, saver.plan
    fabric, training = run.fabric, plan.settings.training
    saved = time.monotonic()
    for reached in fit(run, plan.split.validation, position, on_progress):
        ended = len(reached.epochs) > len(position.epochs)
        position = reached
        if ended:
            saver.describe(position.epochs)
        due = time.monotonic() - saved >= 60.0 * training.save_minutes
        due, stopped = anywhere(fabric, due, stop())
        if ended or due or stopped:
            saver.save(position)
            saved = time.monotonic()
            saver.tidy(position.epochs)
            events.saved(position)
        if ended:
            events.epoch(position)
        if stopped:
            events.stopped(position)
            fabric.barrier()  # no process ends before it is saved
            raise TrainingStopped(
                f"{saver.writer.folder} holds training up to {position.told(training.epochs)}"
            )
    saver.tidy(position.epochs)  # a kill may have come between saving and this
    return position


def standing(out: str | Path, folds: int | None = None) -> dict[Path, Position | None]:
    """Where training into `out`, or into each of its folds, was stopped; None where it never began.

    Raises:
        CheckpointInvalid: a folder holds something else, as `train` with `resume`, or its state of
            training cannot be read.
    """
    out = Path(out)
    folders = [out] if folds is None else [out / fold_name(k) for k in range(1, folds + 1)]
    files = {folder: state_file(CheckpointWriter(folder, resume=True).folder) for folder in folders}
    return {
        folder: None if file is None else State.position_in(file) for folder, file in files.items()
    }
