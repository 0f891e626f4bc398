"""Export: unroll, convert, check, write."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from hrm_export.convert import OPSET, convert
from hrm_export.errors import ExportRefused
from hrm_export.golden import make_golden
from hrm_export.parity import TOLERANCES, compare_eager, require, window_inputs
from hrm_runtime.actions import Action
from hrm_runtime.artifact import load
from hrm_runtime.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_runtime.contract import (
    CONTRACT,
    FORMAT_VERSION,
    GOLDEN,
    MODEL,
    Contract,
    Features,
    Graph,
    Provenance,
    Quantity,
)
from hrm_runtime.model import Model
from hrm_runtime.schema import seal
from hrm_runtime.session import Session
from hrm_train.checkpoint import Checkpoint, load_checkpoint
from hrm_train.prepared import trading_rules

_LIBRARIES = ("hrm", "torch", "onnx", "onnxscript", "onnxruntime", "numpy", "TA-Lib")


@dataclass(frozen=True)
class Exported:
    """A finished artifact: its folder, its id, and what it promises."""

    path: Path
    model_id: str
    contract: Contract


def export(checkpoint: str | Path, out: str | Path) -> Exported:
    """Write the artifact of a checkpoint's best weights to the new folder `out`.

    The graph is held against torch on the checkpoint's held-out windows, the folder is loaded
    once as production would, and only then takes its name. With SOURCE_DATE_EPOCH set, the same
    checkpoint and folder name give the same bytes.

    Raises:
        CheckpointInvalid: the checkpoint is missing, damaged or of other dimensions.
        ExportRefused: `out` exists or cannot be written.
        ParityFailed: the graph does not compute what torch computes. Nothing is written.
    """
    destination = Path(out)
    if os.path.lexists(destination):
        raise ExportRefused(f"{destination}: expected a new folder, found one; remove it first")
    source = load_checkpoint(checkpoint)

    graph = convert(source.model).SerializeToString(deterministic=True)
    contract = _contract(source, destination.name)
    inputs = window_inputs(contract, source.windows)
    golden = make_golden(source, contract, inputs)
    parity = compare_eager(
        source.model,
        Model(contract, "", Session(graph)),
        inputs,
    )
    require(parity)

    files = {MODEL: graph, GOLDEN: golden.to_bytes()}
    hashes = {name: sha256(content).hexdigest() for name, content in files.items()}
    files[CONTRACT] = seal(replace(contract, files=hashes, parity=(parity,)))
    with _staging(destination) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        model = load(folder)
    return Exported(destination, model.id, model.contract)


def _contract(source: Checkpoint, name: str) -> Contract:
    """The contract but for what is known at the end: digest, file hashes, parity."""
    settings, network, model = source.settings, source.settings.network, source.model
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
            precision="fp32",
            opset=OPSET,
        ),
        max_segments=settings.training.max_segments,
        tolerances=TOLERANCES,
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
