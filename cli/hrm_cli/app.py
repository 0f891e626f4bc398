"""The verbs. Each is one library call; what is heavy is imported inside it.

Exit codes: 0 done, 1 a gate failed or a replay differed, 2 bad input or usage, 130 Ctrl-C, 143
SIGTERM; 141 where what reads the output has closed it (`hrm_cli.__main__`).

One thing has one name in all of them; what an option was called before still works, unsaid.
"""

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

import hrm_runtime
from hrm_cli import given, show
from hrm_cli.interrupts import Interrupted, Interrupts, command_with
from hrm_cli.readers import one_series, readers
from hrm_runtime import Account, GateFailed, HrmError
from hrm_runtime.market.series import read_series

P = ParamSpec("P")
R = TypeVar("R")

GATE_FAILED = 1
BAD_INPUT = 2

app = typer.Typer(
    name="hrm",
    help="Train a Hierarchical Reasoning Model, export it, and decide with it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a gate failed or a replay differed, 2 bad input or usage, "
    "130 Ctrl-C, 143 SIGTERM.",
    pretty_exceptions_enable=False,
)

Settings = Annotated[
    Path, typer.Argument(metavar="SETTINGS", help="A settings.yaml, as hrm init writes it.")
]
Checkpoint = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder, as hrm train writes it.")
]
Artifact = Annotated[
    Path, typer.Argument(metavar="ARTIFACT", help="Artifact folder, as hrm export writes it.")
]
_BARS = (
    "Bars file SYMBOL_TIMEFRAME.csv or .parquet, or a folder of them; repeatable. "
    "EUR%2FUSD_60.csv is EUR/USD at 60."
)
Data = Annotated[list[Path], typer.Option(metavar="BARS", help=_BARS)]
BarsOrTensors = Annotated[
    list[Path],
    typer.Option(metavar="BARS", help=f"{_BARS} Or the one file that hrm prepare wrote."),
]
OneFile = Annotated[
    list[Path],
    typer.Option(
        metavar="BARS",
        help="One file of closed bars, SYMBOL_TIMEFRAME.csv or .parquet; or of any name, with "
        "both of the options below.",
    ),
]
Instrument = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the one bars file, such as EUR/USD, instead of what its name says.",
    ),
]
Timeframe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of the one bars file, such as 60 or D, instead of what its name says.",
    ),
]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="PNG file to draw.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Capital = Annotated[float, typer.Option(help="Free currency.")]
Position = Annotated[float, typer.Option(help="Lots held; short below 0.")]
EntryPrice = Annotated[float, typer.Option(help="Of the position.")]
UnrealizedPnl = Annotated[float, typer.Option(help="Of the position, currency.")]
DistanceToTrail = Annotated[float, typer.Option(help="Share of the price.")]


def _also(**earlier: str) -> dict[str, Any]:
    """Settings of a verb whose options answer to earlier names too: the name of each by earlier."""
    return {"token_normalize_func": lambda name: earlier.get(name, name)}


class Preset(StrEnum):
    """Names of `hrm_train.settings.PRESETS`, known without importing torch."""

    TINY = "tiny"
    BASE = "base"


class Device(StrEnum):
    """Names of `hrm_train.learning.devices.Device`, known without importing torch."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Of the weights of an artifact."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


def verb(
    extra: str = "cli", interrupted: str = "nothing was written"
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turn errors and signals into a message on stderr and an exit code.

    Args:
        extra: named where a package of it is missing.
        interrupted: what stands when a signal ends the verb.
    """

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                with Interrupts():
                    given.require(function.__name__, kwargs)
                    return function(*args, **kwargs)
            except Interrupted as signalled:
                _fail(f"interrupted; {interrupted}", signalled.code)
            except ModuleNotFoundError as error:
                package = (error.name or "").partition(".")[0]
                if package not in OPTIONAL:
                    raise
                _fail(f"{function.__name__} needs {package}: pip install '.[{extra}]'", BAD_INPUT)
            except GateFailed as error:
                _fail(str(error), GATE_FAILED)
            except HrmError as error:
                _fail(str(error), BAD_INPUT)

        return run

    return wrap


OPTIONAL = frozenset(
    {
        "bokeh_sampledata",
        "lightning_fabric",
        "matplotlib",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "polars",
        "pydantic",
        "safetensors",
        "sklearn",
        "torch",
        "yaml",
    }
)
"""Packages that come with an extra."""


def _print_version(asked: bool) -> None:
    if asked:
        print(f"hrm {hrm_runtime.__version__}")
        raise typer.Exit


@app.callback()
def hrm(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """What holds of all verbs."""


@app.command()
@verb("train")
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write it; made if it is not there.")
    ],
    preset: Annotated[Preset, typer.Option(help="Size of the network.")] = Preset.BASE,
) -> None:
    """Write a commented settings.yaml."""
    from hrm_train.settings import write_preset

    show.note(f"wrote {write_preset(folder, preset)}")


@app.command(context_settings=_also(bars="data"))
@verb("train")
def prepare(
    settings: Settings,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="New tensor file, .safetensors.")],
    as_json: Json = False,
) -> None:
    """Turn bars into training tensors, once."""
    from hrm_train import load_settings
    from hrm_train import prepare as make
    from hrm_train.data.prepared import require_new_file, skipped_of

    require_new_file(out)
    prepared = make(load_settings(settings), data)
    prepared.save(out)
    series = prepared.manifest.series
    if as_json:
        _print_json({"samples": len(prepared), "series": series, "skipped": skipped_of(series)})
    else:
        show.series(series)
        show.skipped(skipped_of(series))
        show.note(f"wrote {len(prepared):,} samples to {out}")


@app.command(context_settings=_also(bars="data"))
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
    from hrm_train import load_settings
    from hrm_train import train as fit
    from hrm_train.data.prepared import skipped_of
    from hrm_train.learning.devices import Where, is_first_process
    from hrm_train.learning.tensorboard import tensorboard as board
    from hrm_train.learning.trainer import standing, train_folds

    where = Where(device.value, devices, nodes)
    if not is_first_process():
        show.silence()
        tensorboard, as_json = None, False
    with ExitStack() as stack:
        stop = stack.enter_context(_resumable(out, folds))
        consumers = [stack.enter_context(show.training())]
        if tensorboard is not None:
            stack.enter_context(show.failing_threads_quiet())
            consumers.append(stack.enter_context(board(tensorboard)))

        def on_progress(progress: Any) -> None:
            for consume in consumers:
                consume(progress)

        read = load_settings(settings)
        if resume:
            show.resumed(standing(out, folds), read.training.epochs)
        how: dict[str, Any] = {
            "resume": resume, "init_from": init_from, "quantise": quantise, "where": where,
            "stop": stop,
        }  # fmt: skip
        if folds is None:
            trained = [fit(read, data, out, on_progress, **how)]
        else:
            trained = [*train_folds(read, data, out, folds, on_progress, **how)]
    series = trained[0].description.series
    skipped = skipped_of(series)
    if as_json:
        reports = [
            {"best_epoch": one.description.best_epoch, "epochs": one.description.epochs}
            for one in trained
        ]
        report = reports[0] if folds is None else {"folds": reports}
        _print_json({**report, "skipped": skipped})
    else:
        show.series(series)
        for one in trained:
            show.epochs(one.description.epochs, one.description.best_epoch)
        show.skipped(skipped)
        show.note(f"wrote {out}")


@app.command(context_settings=_also(bars="data"))
@verb("train")
def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a folder of fold-1 to fold-K."),
    ],
    data: BarsOrTensors,
    device: Annotated[Device, typer.Option(help="Where the network answers.")] = Device.AUTO,
    as_json: Json = False,
) -> None:
    """Judge a checkpoint on what it was not trained on, beside simple baselines."""
    from hrm_cli import judgement
    from hrm_train.judging.evaluation import evaluate as judge

    with show.advancing("judging") as on_progress:
        found = judge(checkpoint, data, on_progress, device.value)
    if as_json:
        _print_json(asdict(found))
    else:
        judgement.evaluation(found)
        show.skipped(found.skipped)


@app.command()
@verb("export")
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New artifact folder.")],
    precision: Annotated[Precision, typer.Option(help="Of the weights.")] = Precision.FP32,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="BARS",
            help="To calibrate int8 on, for a checkpoint trained without; repeatable.",
        ),
    ] = None,
    golden: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="BARS",
            help="For the golden vectors, instead of the held-out windows; repeatable.",
        ),
    ] = None,
    cycles: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of H, where not those of training.")
    ] = None,
    timesteps: Annotated[
        int | None,
        typer.Option(metavar="T", help="Steps of L per step of H, where not those of training."),
    ] = None,
    max_megabytes: Annotated[float, typer.Option(metavar="MB", help="Largest graph.")] = 100.0,
    as_json: Json = False,
) -> None:
    """Write the artifact of a checkpoint, proven equal to torch on held-out windows."""
    from hrm_export import export as write

    with show.working("converting, composing, comparing with torch"):
        exported = write(
            checkpoint,
            out,
            precision=precision.value,
            calibration=calibration or (),
            golden=golden or (),
            cycles=cycles,
            timesteps=timesteps,
            max_megabytes=max_megabytes,
        )
    if as_json:
        made = {"path": str(exported.path), "model_id": exported.model_id}
        _print_json({**made, "skipped": exported.skipped})
    else:
        show.changes(exported.changes)
        show.parity(exported.contract.parity)
        show.skipped(exported.skipped)
        show.note(f"wrote {exported.path}\nid {exported.model_id}")


@app.command(context_settings=_also(bars="data"))
@verb("export")
def parity(
    artifact: Artifact,
    checkpoint: Annotated[
        Path, typer.Option(metavar="CHECKPOINT", help="The checkpoint it was exported from.")
    ],
    data: Data,
    windows: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many decisions to compare.")
    ] = 2000,
    as_json: Json = False,
) -> None:
    """Hold an artifact against torch: every output, every decision."""
    from hrm_export import check_parity
    from hrm_export.proof.parity import failures

    with show.working("comparing with torch"):
        report = check_parity(artifact, checkpoint, data, windows)
    if as_json:
        _print_json({"passed": report.passed, **asdict(report)})
    else:
        show.parity(report.stages)
        show.skipped(report.skipped)
    if not report.passed:
        _fail("\n".join(failures(report.stages)), GATE_FAILED)


@app.command()
@verb()
def inspect(artifact: Artifact, as_json: Json = False) -> None:
    """Show what an artifact promises."""
    from hrm_runtime import load_contract

    contract = load_contract(artifact)
    if as_json:
        _print_json({"model_id": contract.id, **asdict(contract)})
    else:
        show.contract(contract)


@app.command(context_settings=_also(bars="data"))
@verb()
def predict(
    artifact: Artifact,
    data: OneFile,
    instrument: Instrument = None,
    timeframe: Timeframe = None,
    capital: Capital = 1_000_000.0,
    position: Position = 0.0,
    entry_price: EntryPrice = 0.0,
    unrealized_pnl: UnrealizedPnl = 0.0,
    distance_to_trail: DistanceToTrail = 0.0,
    as_json: Json = False,
) -> None:
    """Decide at the close of the newest bar."""
    from hrm_runtime import load

    model = load(artifact)
    account = _account(capital, position, entry_price, unrealized_pnl, distance_to_trail)
    name, frame, closed = one_series(data, instrument, timeframe)
    decision = model.decide(closed, account, instrument=name, timeframe=frame)
    if as_json:
        _print_json(show.decision_fields(decision))
    else:
        show.decisions([(name, frame, closed, decision)])
    if decision.degraded:
        raise typer.Exit(GATE_FAILED)


@app.command(context_settings=_also(out="picture"))
@verb("bench")
def bench(
    artifact: Artifact,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Beside other precisions and libraries; takes minutes."),
    ] = False,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Measure how fast an artifact answers here, and the memory it takes."""
    from hrm_cli import draw, speed

    if picture is not None:
        draw.require_picture(picture)
    if peers:
        from hrm_export.peers.bench import bench as measure
    else:
        from hrm_runtime.measure.bench import bench as measure
    with show.stages() as on_progress:
        found = measure(artifact, on_progress)
    if as_json:
        _print_json(speed.fields(found))
    else:
        speed.speeds(found)
    if picture is not None:
        draw.bench(found, picture)
        show.note(f"wrote {picture}")
    if not any(result.weights == "artifact" for result in found.results):
        raise typer.Exit(GATE_FAILED)


@app.command(context_settings=_also(bars="data", out="picture"))
@verb()
def backtest(
    artifact: Artifact,
    data: Data,
    instrument: Instrument = None,
    timeframe: Timeframe = None,
    capital: Capital = 1_000_000.0,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="First day (UTC) to decide on.",
            show_default="where training ended",
        ),
    ] = None,
    fixed_exits: Annotated[
        bool, typer.Option("--fixed-exits", help="A stop that does not trail, and a target.")
    ] = False,
    host_fills: Annotated[
        bool,
        typer.Option("--host-fills", help="Book stops at their own price, which flatters."),
    ] = False,
    picture: Picture = None,
    as_json: Json = False,
) -> None:
    """Walk through past bars as a live process would have, and account for every trade."""
    from hrm_cli import draw, report
    from hrm_runtime import load
    from hrm_runtime.backtest.walk import backtests

    if picture is not None:
        draw.require_picture(picture)
    moment = None if since is None else int(since.replace(tzinfo=UTC).timestamp())
    model = load(artifact)
    series = read_series(data, readers(), instrument=instrument, timeframe=timeframe)
    with show.advancing("deciding") as on_progress:
        found = backtests(
            model,
            series,
            capital=capital,
            since=moment,
            trailing=not fixed_exits,
            host_fills=host_fills,
            on_progress=on_progress,
        )
    if as_json:
        fields = [report.backtest_fields(one) for one in found.done]
        _print_json({"series": fields, "skipped": found.skipped})
    else:
        report.backtests(found.done)
        show.skipped(found.skipped)
    if picture is not None:
        draw.backtests(found.done, picture)
        show.note(f"wrote {picture}")


@app.command(context_settings=_also(bars="data", out="picture"))
@verb()
def trace(
    artifact: Artifact,
    data: OneFile,
    picture: Annotated[Path, typer.Option(metavar="FILE", help="PNG file to draw.")],
    instrument: Instrument = None,
    timeframe: Timeframe = None,
    capital: Capital = 1_000_000.0,
    position: Position = 0.0,
    entry_price: EntryPrice = 0.0,
    unrealized_pnl: UnrealizedPnl = 0.0,
    distance_to_trail: DistanceToTrail = 0.0,
    as_json: Json = False,
) -> None:
    """Draw how the decision at the close of the newest bar comes about, step by step."""
    from hrm_cli import draw, report
    from hrm_runtime import load
    from hrm_runtime.measure.trace import trace as follow

    draw.require_picture(picture)
    account = _account(capital, position, entry_price, unrealized_pnl, distance_to_trail)
    model = load(artifact)
    name, frame, closed = one_series(data, instrument, timeframe)
    found = follow(model, closed, account, instrument=name, timeframe=frame)
    draw.trace(found, picture)
    if as_json:
        _print_json(report.trace_fields(found))
    else:
        report.trace(found)
    show.note(f"wrote {picture}")
    if found.decision.degraded:
        raise typer.Exit(GATE_FAILED)


@app.command(context_settings=_also(model="artifact"))
@verb()
def replay(
    journal: Annotated[
        Path,
        typer.Argument(metavar="JOURNAL", help="Folder of a live engine, or one of its files."),
    ],
    artifact: Annotated[
        list[Path],
        typer.Option(metavar="ARTIFACT", help="An artifact that decided; repeatable."),
    ],
    as_json: Json = False,
) -> None:
    """Decide again what a live engine's journal holds, and name the first difference."""
    from hrm_cli import report
    from hrm_runtime import load
    from hrm_runtime.live.replay import replay as again

    models = [load(path) for path in artifact]
    with show.working("deciding again"):
        found = again(journal, models)
    if as_json:
        _print_json(asdict(found))
    else:
        report.replayed(found)
    if found.difference is not None:
        raise typer.Exit(GATE_FAILED)


@contextmanager
def _resumable(out: Path, folds: int | None) -> Iterator[Callable[[], bool]]:
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
    _fail(f"interrupted; {stands}; go on with\n{command_with('--resume')}", code)


STOPPING = "\nhrm: stopping after this step; Ctrl-C again ends at once\n"


@app.command(context_settings=_also(model="artifact"))
@verb("demo", interrupted="what it had made is removed")
def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="New folder for everything the demo makes.")
    ] = Path("hrm-demo"),
    artifact: Annotated[
        Path | None,
        typer.Option(
            metavar="ARTIFACT",
            help="One that decides for the same bars first.",
            show_default="models/base/artifact, where it is",
        ),
    ] = None,
) -> None:
    """Do all of it on bundled real bars: decide, train, export, parity, decide without torch."""
    from hrm_cli.demo import RELEASED, run

    if artifact is None and RELEASED.is_dir():
        artifact = RELEASED
    ours = not os.path.lexists(out)
    try:
        passed = run(out, artifact)
    except Interrupted:
        if ours:
            shutil.rmtree(out, ignore_errors=True)
        raise
    if not passed:
        raise typer.Exit(GATE_FAILED)


def _account(
    capital: float, position: float, entry_price: float, unrealized_pnl: float, trail: float
) -> Account:
    return Account(capital, position, entry_price, unrealized_pnl, position != 0, trail)


def _fail(message: str, code: int) -> NoReturn:
    print(f"hrm: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _print_json(document: dict[str, Any]) -> None:
    text = json.dumps(document, default=asdict)
    finite = json.loads(text, parse_constant=lambda _: None)  # JSON has no infinity
    print(json.dumps(finite))
