"""`hrm train`: bars or tensors to a checkpoint, or to one per fold."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hrm_cli.interrupts import Interrupted, Interrupts, command_with
from hrm_cli.options import BarsOrTensors, Device, Json, Settings, also
from hrm_cli.verb import fail, print_json, verb

if TYPE_CHECKING:
    from hrm_train.learning.checkpoint import Checkpoint
    from hrm_train.learning.epochs import Progress

app = typer.Typer()

STOPPING: Final = "\nhrm: stopping after this step; Ctrl-C again ends at once\n"


@app.command(context_settings=also(bars="data"))
@verb("train")
def train(
    settings: Settings,
    data: BarsOrTensors,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New checkpoint folder.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where this training was stopped.")
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="Go on from this one, or from a folder of folds."),
    ] = None,
    quantise: Annotated[
        bool,
        typer.Option("--quantise", help="Go on in 8-bit integers, as an int8 artifact computes."),
    ] = False,
    folds: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Walk forward: one checkpoint per fold, in OUT/fold-k."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.AUTO,
    devices: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes per machine, one per GPU.")
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Machines, each under torchrun.")
    ] = 1,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write TensorBoard events to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a network; keep its best weights and where training stands in a checkpoint folder."""
    import hrm_train
    from hrm_cli.show import console
    from hrm_cli.show.training import resumed
    from hrm_train.learning.devices import Where, is_first_process
    from hrm_train.learning.trainer import standing, train_folds

    where = Where(device.value, devices, nodes)
    if not is_first_process():
        console.silence()
        tensorboard, as_json = None, False
    with resumable(out, folds) as stop, followed(tensorboard) as on_progress:
        read = hrm_train.load_settings(settings)
        if resume:
            resumed(standing(out, folds), read.training.epochs)
        how: dict[str, Any] = {
            "resume": resume, "init_from": init_from, "quantise": quantise, "where": where,
            "stop": stop,
        }  # fmt: skip
        if folds is None:
            trained = [hrm_train.train(read, data, out, on_progress, **how)]
        else:
            trained = [*train_folds(read, data, out, folds, on_progress, **how)]
    if as_json:
        print_json(fields(trained, folds))
    else:
        show(trained, out)


@contextmanager
def resumable(out: Path, folds: int | None) -> Iterator[Callable[[], bool]]:
    """What training asks whether to stop; where it does, say how to go on."""
    from hrm_train.errors import TrainingStopped
    from hrm_train.learning.devices import is_first_process
    from hrm_train.learning.trainer import standing

    first = is_first_process()
    with Interrupts(STOPPING if first else "") as interrupts:
        try:
            yield interrupts.came
        except TrainingStopped as stopped:
            if not first:  # a failure would have the first process killed while it speaks
                raise typer.Exit from stopped
            stands, code = str(stopped), interrupts.code
        except Interrupted as signalled:
            if not any(standing(out, folds).values()):
                raise
            stands, code = f"{out} holds what was saved before", signalled.code
        else:
            return
    fail(f"interrupted; {stands}; go on with\n{command_with('--resume')}", code)


@contextmanager
def followed(tensorboard: Path | None) -> "Iterator[Callable[[Progress], None]]":
    """What training tells its progress: shown, and written where TensorBoard reads it."""
    from hrm_cli.show.training import training
    from hrm_train.learning.tensorboard import tensorboard as board

    with ExitStack() as stack:
        consumers = [stack.enter_context(training())]
        if tensorboard is not None:
            stack.enter_context(failing_threads_quiet())
            consumers.append(stack.enter_context(board(tensorboard)))

        def on_progress(progress: "Progress") -> None:
            for consume in consumers:
                consume(progress)

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


def fields(trained: "Sequence[Checkpoint]", folds: int | None) -> dict[str, Any]:
    """What was trained as `hrm train --json` prints it."""
    from hrm_train.data.prepared import skipped_of

    reports = [
        {"best_epoch": one.description.best_epoch, "epochs": one.description.epochs}
        for one in trained
    ]
    report = reports[0] if folds is None else {"folds": reports}
    return {**report, "skipped": skipped_of(trained[0].description.series)}


def show(trained: "Sequence[Checkpoint]", out: Path) -> None:
    """The bars that they were trained on, the epochs of each, and where they are."""
    from hrm_cli.show import bars, console
    from hrm_cli.show.training import epochs
    from hrm_train.data.prepared import skipped_of

    series = trained[0].description.series
    bars.series(series)
    for one in trained:
        epochs(one.description.epochs, one.description.best_epoch)
    bars.skipped(skipped_of(series))
    console.note(f"wrote {out}")
