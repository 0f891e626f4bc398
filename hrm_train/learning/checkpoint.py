"""Checkpoint folders: weights, settings, vocabularies and held-out windows.

settings.yaml         what was trained, for reading
windows.safetensors   held-out windows, as bars and accounts
best-N.safetensors    weights of epoch N, which had the lowest validation loss; statistics inside
checkpoint.json       what they mean and their sha256; written after them
last.safetensors      where training stands, to resume it; needed for nothing else

Each file is written whole or not at all, and none that checkpoint.json names is ever written over:
whenever a process dies, what is there can be loaded and resumed.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from safetensors import SafetensorError

from hrm_runtime.artifact.schema import (
    LinesConverted,
    SchemaMismatch,
    SealBroken,
    converted,
    is_converted,
    parse,
    seal,
    unseal,
)
from hrm_runtime.files import whole
from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_train.data.prepared import Series
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.data.windows import Windows
from hrm_train.errors import CheckpointInvalid
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import Settings, load_settings, render

FORMAT_VERSION: Final = 1

MANIFEST: Final = "checkpoint.json"
SETTINGS: Final = "settings.yaml"
WINDOWS: Final = "windows.safetensors"
LAST: Final = "last.safetensors"


def best_file(epoch: int | str) -> str:
    """The name of the weights of `epoch`, where it is the best."""
    return f"best-{epoch}.safetensors"


def fold_name(number: int) -> str:
    """The name of the folder of a fold, of those of a walk forward."""
    return f"fold-{number}"


def folds_in(folder: Path) -> dict[int, Path]:
    """The folders of folds in `folder`, in order of their numbers; none in that of a checkpoint."""
    if (folder / MANIFEST).exists():
        return {}
    matches = (re.fullmatch(r"fold-([1-9]\d*)", path.name) for path in folder.glob("fold-*"))
    return {n: folder / fold_name(n) for n in sorted(int(match[1]) for match in matches if match)}


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: from 1.
        train_loss: average over all segments that were trained, halting included.
        validation_loss: of the answers that would be served: policy, value and quantity.
        accuracy: share of validation samples whose chosen action is the best in hindsight.
        regret: average return given up against hindsight, in ATR.
        segments: average number of segments until a validation sample halts.
    """

    number: int
    train_loss: float
    validation_loss: float
    accuracy: float
    regret: float
    segments: float


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `checkpoint.json`; `digest` as in a contract.

    Attributes:
        boundary: epoch seconds; every label trained on was known before.
        judged_from, judged_until: epoch seconds between which this checkpoint is to be judged,
            after an embargo of the label horizon; None is no end. From the boundary on where
            nothing was kept aside: then the epoch was chosen on what judges it.
        initialized_from: sha256 of the checkpoint that training went on from.
        quantised: whether the weights were trained, and are judged, with quantisers on.
    """

    format_version: int
    digest: str
    feature_version: int
    features: tuple[str, ...]
    account: tuple[str, ...]
    vocabulary: Vocabulary
    series: tuple[Series, ...]
    train_samples: int
    validation_samples: int
    boundary: int
    judged_from: int
    judged_until: int | None
    initialized_from: str | None
    quantised: bool
    best_epoch: int
    epochs: tuple[Epoch, ...]
    files: dict[str, str]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that was read: the best weights in eval mode and all that belongs to them.

    `sha256` is that of `checkpoint.json`, hence of everything in the folder.
    """

    model: HierarchicalReasoningModel
    settings: Settings
    description: Description
    windows: Windows
    sha256: str

    def __repr__(self) -> str:
        best = self.description.best_epoch
        number = f"epoch {best} of {len(self.description.epochs)}"
        size = f"{self.model.cycles} x {self.model.timesteps}"
        return f"Checkpoint({size}, {number}, sha256 {self.sha256[:12]}...)"


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read and verify a checkpoint folder.

    Raises:
        CheckpointInvalid: missing, incomplete, changed, or of other dimensions.
    """
    folder = Path(folder)
    text, description = read_description(folder)
    for name, expected in description.files.items():
        if (found := _sha256(folder / name)) != expected:
            if is_converted((folder / name).read_bytes(), expected):
                raise CheckpointInvalid(f"{folder}: {converted(name)}")
            raise CheckpointInvalid(f"{folder / name}: expected sha256 {expected}, found {found}")
    best = best_file(description.best_epoch)
    model = HierarchicalReasoningModel.load_model(folder / best)
    settings = load_settings(folder / SETTINGS)
    if settings != model.settings:
        raise CheckpointInvalid(f"{folder}: {SETTINGS} differs from the settings inside {best}")
    if description.quantised != model.quantised:
        raise CheckpointInvalid(
            f"{folder}: {best}: expected quantised {description.quantised}, as {MANIFEST} says, "
            f"found {model.quantised}"
        )
    return Checkpoint(
        model,
        settings,
        description,
        Windows.load(folder / WINDOWS),
        hashlib.sha256(text).hexdigest(),
    )


def load_model(path: str | Path) -> HierarchicalReasoningModel:
    """The best model of a checkpoint folder, or that of a file written by `save_model`.

    Raises:
        CheckpointInvalid: as `load_checkpoint`.
    """
    path = Path(path)
    return (
        load_checkpoint(path).model
        if path.is_dir()
        else HierarchicalReasoningModel.load_model(path)
    )


class CheckpointWriter:
    """Writes a checkpoint folder as training goes on; each file whole or not at all.

    Args:
        folder: new, or empty; with `resume` also one that training has begun to write.

    Raises:
        CheckpointInvalid: it holds anything else, or cannot be looked at.
    """

    def __init__(self, folder: str | Path, resume: bool = False) -> None:
        self.folder = Path(folder)
        try:
            if os.path.lexists(self.folder) and not self.folder.is_dir():
                raise CheckpointInvalid(f"{self.folder}: expected a folder, found a file")
            found = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []
        except OSError as error:
            raise CheckpointInvalid(f"{self.folder}: {error}") from error
        if resume:
            found = [name for name in found if not _is_ours(name)]
        if found:
            raise CheckpointInvalid(
                f"{self.folder}: expected a new or empty folder{' or a checkpoint' * resume}, "
                f"found {', '.join(found[:5])}; choose another, remove it"
                + ("" if resume else ", or resume it")
            )

    def begin(self, settings: Settings, windows: Windows) -> None:
        """Make the folder and write what does not change any more."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointInvalid(
                f"{self.folder}: expected to make this folder: {error}"
            ) from error
        # as bytes: their hash is the same on every system
        self.write(SETTINGS, lambda path: path.write_bytes(render(settings).encode()))
        self.write(WINDOWS, windows.save)

    def describe(self, description: Description, best: HierarchicalReasoningModel | None) -> None:
        """Write `checkpoint.json`, and before it the weights of its best epoch where they are new.

        Args:
            description: without its digest and hashes.
            best: the weights of `description.best_epoch`; None where they were written before.
        """
        name = best_file(description.best_epoch)
        if best is not None:
            self.write(name, best.save_model)
        hashes = {file: _sha256(self.folder / file) for file in (SETTINGS, WINDOWS, name)}
        sealed = seal(replace(description, files=hashes))
        self.write(MANIFEST, lambda path: path.write_bytes(sealed))

    def keep_only(self, best_epoch: int) -> None:
        """Remove the weights of other epochs.

        Not before the state that knows of `best_epoch` is saved: a run resumed from an earlier one
        may need them again.
        """
        for old in self.folder.glob(best_file("*")):
            if old.name != best_file(best_epoch):
                old.unlink(missing_ok=True)

    def write(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` make the file `name`, which takes its name once it is safely on the disk.

        Raises:
            CheckpointInvalid: it cannot be written; what had the name before is untouched.
        """
        try:
            with whole(self.folder / name) as partial:
                write(partial)
        except (OSError, SafetensorError) as error:
            raise CheckpointInvalid(
                f"{self.folder / name}: expected to write this file: {error}; what was saved "
                "before is untouched"
            ) from error


def _is_ours(name: str) -> bool:
    name = name.removeprefix(".").removesuffix(".partial")
    return (
        name in {MANIFEST, SETTINGS, WINDOWS, LAST}
        or re.fullmatch(best_file(r"\d+"), name) is not None
    )


def read_description(folder: Path) -> tuple[bytes, Description]:
    """The manifest in `folder`, as it is written and as it is meant; no other file is read.

    Raises:
        CheckpointInvalid: missing, damaged, or of another version or other features.
    """
    file = folder / MANIFEST
    try:
        text = file.read_bytes()
        document = parse(text)
        version = document.get("format_version") if isinstance(document, Mapping) else None
        if version != FORMAT_VERSION:
            raise CheckpointInvalid(
                f"{file}: expected format version {FORMAT_VERSION}, found {version!r}; train again"
            )
        description = unseal(Description, document, text)
    except OSError as error:
        raise CheckpointInvalid(f"{folder}: expected a checkpoint folder: {error}") from error
    except LinesConverted as error:
        raise CheckpointInvalid(f"{folder}: {converted(MANIFEST)}") from error
    except (SchemaMismatch, SealBroken) as error:
        raise CheckpointInvalid(f"{file}: {error}") from error
    expected = {SETTINGS, WINDOWS, best_file(description.best_epoch)}
    if description.files.keys() != expected:
        raise CheckpointInvalid(
            f"{file}: files: expected {sorted(expected)}, found {[*description.files]}"
        )
    if (description.feature_version, description.features, description.account) != (
        FEATURE_VERSION,
        FEATURES,
        ACCOUNT,
    ):
        raise CheckpointInvalid(
            f"{file}: expected this library's features and account (definition version "
            f"{FEATURE_VERSION}), found others (version {description.feature_version}); train again"
        )
    return text, description


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointInvalid(f"{path}: expected a file of the checkpoint: {error}") from error
