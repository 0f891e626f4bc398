"""The verbs. Each is one library call; what is heavy is imported inside it.

Exit codes: 0 done, 1 a gate failed, 2 bad input or usage.
"""

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

from cli import show
from hrm_runtime import Account, GateFailed, HrmError, read_csv

P = ParamSpec("P")
R = TypeVar("R")

GATE_FAILED = 1
BAD_INPUT = 2

app = typer.Typer(
    name="hrm",
    help="Train a Hierarchical Reasoning Model, export it, and decide with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Data = Annotated[
    list[Path], typer.Option(help="Bars file SYMBOL_TIMEFRAME.csv or a folder of them; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


class Preset(StrEnum):
    """Names of `hrm_train.settings.PRESETS`, known without importing torch."""

    TINY = "tiny"
    BASE = "base"


def verb(extra: str = "cli") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Turn errors into a message on stderr and an exit code; name the extra that is missing."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
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
        "onnx",
        "onnx_ir",
        "onnxscript",
        "pydantic",
        "safetensors",
        "torch",
        "yaml",
    }
)
"""Packages that come with an extra."""


@app.command()
@verb("train")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    preset: Annotated[Preset, typer.Option(help="Size of the network.")] = Preset.BASE,
) -> None:
    """Write a commented settings.yaml."""
    from hrm_train.settings import write_preset

    show.note(f"wrote {write_preset(folder, preset)}")


@app.command()
@verb("train")
def prepare(
    settings: Path,
    data: Data,
    out: Annotated[Path, typer.Option(help="Tensor file, .safetensors.")],
    as_json: Json = False,
) -> None:
    """Turn bars into training tensors, once."""
    from hrm_train import load_settings
    from hrm_train import prepare as make
    from hrm_train.prepared import require_new_file

    require_new_file(out)
    prepared = make(load_settings(settings), data)
    prepared.save(out)
    if as_json:
        _print_json({"samples": len(prepared), "series": prepared.manifest.series})
    else:
        show.series(prepared.manifest.series)
        show.note(f"wrote {len(prepared):,} samples to {out}")


@app.command()
@verb("train")
def train(
    settings: Path,
    data: Data,
    out: Annotated[Path, typer.Option(help="New checkpoint folder.")],
    as_json: Json = False,
) -> None:
    """Train a network; keep the best and the last weights in a checkpoint folder."""
    from hrm_train import load_settings
    from hrm_train import train as fit

    with show.training() as on_progress:
        checkpoint = fit(load_settings(settings), data, out, on_progress)
    if as_json:
        _print_json(
            {
                "best_epoch": checkpoint.description.best_epoch,
                "epochs": checkpoint.description.epochs,
            }
        )
    else:
        show.series(checkpoint.description.series)
        show.epochs(checkpoint.description.epochs, checkpoint.description.best_epoch)
        show.note(f"wrote {out}")


@app.command()
@verb("export")
def export(
    checkpoint: Path,
    out: Annotated[Path, typer.Option(help="New artifact folder.")],
    as_json: Json = False,
) -> None:
    """Write the artifact of a checkpoint, proven equal to torch on held-out windows."""
    from hrm_export import export as write

    with show.working("unrolling, converting, checking"):
        exported = write(checkpoint, out)
    if as_json:
        _print_json({"path": str(exported.path), "model_id": exported.model_id})
    else:
        show.parity(exported.contract.parity)
        show.note(f"wrote {exported.path}, id {exported.model_id}")


@app.command()
@verb("export")
def parity(
    artifact: Path,
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint it was exported from.")],
    data: Data,
    windows: Annotated[int, typer.Option(min=1, help="How many decisions to compare.")] = 2000,
    as_json: Json = False,
) -> None:
    """Hold an artifact against torch: every output, every decision."""
    from hrm_export import check_parity

    with show.working("comparing with torch"):
        report = check_parity(artifact, checkpoint, data, windows)
    if as_json:
        _print_json({"passed": report.passed, **asdict(report)})
    else:
        show.parity(report.stages)
    if not report.passed:
        raise typer.Exit(GATE_FAILED)


@app.command()
@verb()
def inspect(artifact: Path, as_json: Json = False) -> None:
    """Show what an artifact promises."""
    from hrm_runtime import load_contract

    contract = load_contract(artifact)
    if as_json:
        _print_json(asdict(contract))
    else:
        show.contract(contract)


@app.command()
@verb()
def predict(
    artifact: Path,
    bars: Annotated[Path, typer.Option(help="CSV file of closed bars.")],
    instrument: Annotated[str, typer.Option(help="A name the artifact knows.")],
    timeframe: Annotated[str, typer.Option(help="A name the artifact knows.")],
    capital: Annotated[float, typer.Option(help="Free currency.")] = 1_000_000.0,
    position: Annotated[float, typer.Option(help="Lots held; short below 0.")] = 0.0,
    entry_price: Annotated[float, typer.Option(help="Of the position.")] = 0.0,
    unrealized_pnl: Annotated[float, typer.Option(help="Of the position, currency.")] = 0.0,
    distance_to_trail: Annotated[float, typer.Option(help="Share of the price.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Decide at the close of the newest bar."""
    from hrm_runtime import load

    model = load(artifact)
    account = Account(
        capital, position, entry_price, unrealized_pnl, position != 0, distance_to_trail
    )
    closed = read_csv(bars)
    decision = model.decide(closed, account, instrument=instrument, timeframe=timeframe)
    if as_json:
        _print_json(show.decision_fields(decision))
    else:
        show.decisions([(instrument, timeframe, closed, decision)])
    if decision.degraded:
        raise typer.Exit(GATE_FAILED)


@app.command()
@verb("demo")
def demo(
    out: Annotated[Path, typer.Option(help="New folder for everything the demo makes.")] = Path(
        "hrm-demo"
    ),
) -> None:
    """Do all of it on bundled real bars: train, export, parity, decide without torch."""
    from cli.demo import run

    if not run(out):
        raise typer.Exit(GATE_FAILED)


def _fail(message: str, code: int) -> NoReturn:
    print(f"hrm: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _print_json(document: dict[str, Any]) -> None:
    text = json.dumps(document, default=asdict)
    finite = json.loads(text, parse_constant=lambda _: None)  # JSON has no infinity
    print(json.dumps(finite))
