"""Export: build the graph, hold it to its limits and to torch, write the artifact."""

import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final, get_args

from hrm_export.errors import ExportRefused
from hrm_export.graph.build import Change, stages
from hrm_export.graph.limits import MEGABYTE, MOST_MEGABYTES, require_limits
from hrm_export.graph.steps import OPSET
from hrm_export.proof.gates import OF_PRECISION
from hrm_export.proof.golden import make_golden
from hrm_export.proof.inputs import Inputs, bars_windows, window_inputs
from hrm_export.proof.parity import lower_rungs, require, torch_run, twin_of, upper_rungs
from hrm_runtime.artifact.contract import (
    CONTRACT,
    FORMAT_VERSION,
    GOLDEN,
    MODEL,
    Contract,
    Features,
    Graph,
    Precision,
    Provenance,
    Quantity,
    brief,
)
from hrm_runtime.artifact.folder import MOST_BYTES, load
from hrm_runtime.artifact.golden import Golden
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.schema import seal
from hrm_runtime.artifact.session import Session
from hrm_runtime.market.actions import Action
from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_runtime.market.series import SkippedSeries
from hrm_train.data.prepared import trading_rules
from hrm_train.learning.checkpoint import Checkpoint, load_checkpoint
from hrm_train.learning.devices import computing_with
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.scales import calibrate

_LIBRARIES = ("hrm", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "TA-Lib")


Bars = str | Path | Sequence[str | Path]
"""Bars files and folders of them; one, several or none."""

MOST_STEPS: Final = 1000
"""Low steps in a graph, N x T; more would decide nothing in time."""

MOST_WINDOWS: Final = 512
"""Of bars for calibration or for golden vectors."""


@dataclass(frozen=True)
class Exported:
    """A finished artifact: its folder, its id, what it promises, and how its graph was made.

    `skipped` are the series of given bars that gave no windows.
    """

    path: Path
    model_id: str
    contract: Contract
    changes: tuple[Change, ...]
    skipped: tuple[SkippedSeries, ...]

    def __repr__(self) -> str:
        return f"Exported({self.path}, {brief(self.contract, self.model_id)})"


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    precision: Precision = "fp32",
    calibration: Bars = (),
    golden: Bars = (),
    cycles: int | None = None,
    timesteps: int | None = None,
    max_megabytes: float = MOST_MEGABYTES,
) -> Exported:
    """Write the artifact of a checkpoint's best weights to the new folder `out`.

    The graphs are held against torch on the checkpoint's held-out windows, the folder is loaded
    once as production would, and only then takes its name. With SOURCE_DATE_EPOCH set, the same
    inputs and folder name give the same bytes. Where anything is raised, nothing is written.

    Args:
        checkpoint: folder that training wrote.
        out: the folder to write.
        precision: of the weights. "int8" needs a checkpoint trained with quantisers, or
            `calibration`.
        calibration: bars to find the scales of quantisers on, where the checkpoint has none.
        golden: bars to take golden vectors from instead of the held-out windows.
        cycles, timesteps: N and T of the graph, where not those of the settings.
        max_megabytes: largest graph, in 10^6 bytes.

    Raises:
        CheckpointInvalid: the checkpoint is missing, damaged or of other dimensions.
        BadBars, DataInvalid: calibration or golden bars cannot be read, are too few, or no series
            of them gives windows; or too few windows have a decision that rounding cannot turn.
        ExportRefused: `out` exists or cannot be written, the precision is none, a number is out of
            bounds, or there are no quantisers.
        PassFailed, LimitExceeded, ParityFailed: the graph is not what it should be.
    """
    _require_sensible(precision, max_megabytes)
    destination = Path(out)
    _require_new(destination)
    source = load_checkpoint(checkpoint)
    with computing_with(source.settings.threads):
        model, skipped = _configured(source, precision, cycles, timesteps, calibration)

        graph, lower, changes = _graphs(model, precision)
        require_limits(graph, max_megabytes)

        contract = contract_of(source, model, precision, destination.name)
        inputs = window_inputs(contract, source.windows)
        served = Model(contract, "", Session(graph))
        parity = lower_rungs(model, contract, lower, inputs) + upper_rungs(
            model, served, graph, inputs, source.description.quantised
        )
        require(parity)
        vectors, left_out = _golden_vectors(source, model, served, golden, inputs)
        skipped = tuple(dict.fromkeys((*skipped, *left_out)))  # both may be of the same bars

    with _staging(destination) as folder:
        write_files(folder, replace(contract, parity=parity), graph, vectors)
        loaded = load(folder)
    return Exported(destination, loaded.id, loaded.contract, changes, skipped)


def _require_sensible(precision: Precision, max_megabytes: float) -> None:
    if precision not in get_args(Precision):
        raise ExportRefused(
            f"precision: expected one of {', '.join(get_args(Precision))}, found {precision!r}"
        )
    most = MOST_BYTES[MODEL] / MEGABYTE  # that is loaded
    if not 0 < max_megabytes <= most:
        raise ExportRefused(
            f"max_megabytes: expected a size above 0 and at most {most:g}, found {max_megabytes!r}"
        )


def _graphs(
    model: HierarchicalReasoningModel, precision: Precision
) -> tuple[bytes, dict[str, bytes], tuple[Change, ...]]:
    """The graph to deploy, those on the way to it by stage, and how it was made."""
    graphs: dict[str, bytes] = {}
    changes: tuple[Change, ...] = ()
    for built in stages(model, precision):
        graphs[built.stage], changes = built.to_bytes(), built.changes
    _, graph = graphs.popitem()  # what is deployed comes last
    return graph, graphs, changes


def _golden_vectors(
    source: Checkpoint,
    model: HierarchicalReasoningModel,
    served: Model,
    bars: Bars,
    held_out: Inputs,
) -> tuple[Golden, tuple[SkippedSeries, ...]]:
    """Vectors of the given bars, of the held-out windows where there are none.

    Also the series of the bars that gave no windows.
    """
    candidates, inputs, skipped = source.windows, held_out, tuple[SkippedSeries, ...]()
    if bars:
        candidates, skipped = bars_windows(source, bars, MOST_WINDOWS)
        inputs = window_inputs(served.contract, candidates)
    twin = torch_run(twin_of(model, served.contract.graph.precision))
    return make_golden(twin, served.run, served.contract, candidates, inputs), skipped


def write_files(folder: Path, contract: Contract, graph: bytes, golden: Golden) -> None:
    """Write the three files of an artifact; the contract gets the hashes of the others."""
    files = {MODEL: graph, GOLDEN: golden.to_bytes()}
    hashes = {name: sha256(content).hexdigest() for name, content in files.items()}
    files[CONTRACT] = seal(replace(contract, files=hashes))
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _configured(
    source: Checkpoint,
    precision: Precision,
    cycles: int | None,
    timesteps: int | None,
    calibration: Bars,
) -> tuple[HierarchicalReasoningModel, tuple[SkippedSeries, ...]]:
    """The network with the N, T and quantisers to be deployed; series that calibrated nothing."""
    skipped: tuple[SkippedSeries, ...] = ()
    if calibration and (precision != "int8" or source.model.quantised):
        raise ExportRefused(
            f"calibration: expected for int8 of a checkpoint without quantisers only; this is "
            f"{precision}, and the checkpoint has {'them' if source.model.quantised else 'none'}"
        )
    model = source.model if precision == "int8" else source.model.without_quantisers()
    model.cycles = model.cycles if cycles is None else cycles
    model.timesteps = model.timesteps if timesteps is None else timesteps
    loops = (model.cycles, model.timesteps)
    whole = all(type(number) is int for number in loops)
    if not whole or min(loops) < 1 or math.prod(loops) > MOST_STEPS:
        raise ExportRefused(
            f"cycles and timesteps: expected 1 or more of each and at most {MOST_STEPS} steps in "
            f"all, found {model.cycles} x {model.timesteps}"
        )
    if precision == "int8" and not model.quantised:
        if not calibration:
            raise ExportRefused(
                "int8: expected a checkpoint trained with quantisers, found one without; train on "
                "with --quantise --init-from, or give bars with --calibration"
            )
        found, skipped = bars_windows(source, calibration, MOST_WINDOWS)
        contract = contract_of(source, model, "fp32", "")
        model.quantise(calibrate(model, *window_inputs(contract, found).arrays))
    return model, skipped


def contract_of(
    source: Checkpoint, model: HierarchicalReasoningModel, precision: Precision, name: str
) -> Contract:
    """The contract but for what is known at the end: digest, file hashes, parity."""
    settings, network = source.settings, source.settings.network
    return Contract(
        format_version=FORMAT_VERSION,
        digest="",
        name=name,
        created=_created(),
        files={},
        provenance=Provenance(
            checkpoint_sha256=source.sha256,
            trained_until=source.description.judged_from,
            settings=settings.model_dump(mode="json"),
            versions={"python": platform.python_version()}
            | {library: version(library) for library in _LIBRARIES},
        ),
        features=Features(
            version=FEATURE_VERSION,
            names=FEATURES,
            history_bars=network.input.history_bars,
            window=network.input.window,
        ),
        account=ACCOUNT,
        actions={action.name: int(action) for action in Action},
        instruments=source.description.vocabulary.instruments,
        timeframes=source.description.vocabulary.timeframes,
        allow_unknown_instrument=network.embeddings.allow_unknown_instruments,
        allow_unknown_timeframe=network.embeddings.allow_unknown_timeframes,
        quantity=Quantity(
            min=network.output_heads.quantity_min, max=network.output_heads.quantity_max
        ),
        trading=trading_rules(settings),
        graph=Graph(
            cycles=model.cycles,
            timesteps=model.timesteps,
            reset_l=model.reset_l,
            tokens=model.tokens,
            h_dim=network.h_module.hidden_dim,
            l_dim=network.l_module.hidden_dim,
            precision=precision,
            opset=OPSET,
            input_scales={name: float(scale) for name, scale in model.scales.items()},
        ),
        max_segments=settings.training.max_segments,
        tolerances=dict(OF_PRECISION[precision].tolerances or {}),
        parity=(),
    )


def _created() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ExportRefused(
            f"SOURCE_DATE_EPOCH: expected epoch seconds, found {epoch!r}"
        ) from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _require_new(destination: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if os.path.lexists(destination):
        raise ExportRefused(f"{destination}: expected a new folder, found one; remove it first")
    parent = next(path for path in destination.absolute().parents if os.path.lexists(path))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ExportRefused(
            f"{destination}: expected to write there, found {parent}, where nothing can be written"
        )


@contextmanager
def _staging(destination: Path) -> Iterator[Path]:
    """A folder beside `destination` that takes its name if all goes well and vanishes if not."""
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise ExportRefused(f"{destination}: expected to write there: {error}") from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes private folders; an artifact is shared
        folder.rename(destination)
    except OSError as error:
        raise ExportRefused(f"{destination}: expected to write there: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
