"""Checkpoint folders: weights, settings, vocabularies and held-out windows.

settings.yaml         what was trained, for reading
best.safetensors      weights with the lowest validation loss, statistics and settings inside
last.safetensors      weights after the last epoch
windows.safetensors   held-out windows, as bars and accounts
checkpoint.json       what they mean and their sha256; written last
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hrm_runtime.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_runtime.schema import SchemaMismatch, SealBroken, parse, seal, unseal
from hrm_train.errors import CheckpointInvalid
from hrm_train.model import HierarchicalReasoningModel
from hrm_train.prepared import Manifest, Series, Vocabulary
from hrm_train.settings import Settings, load_settings, render
from hrm_train.windows import Windows

FORMAT_VERSION: Final = 1

MANIFEST: Final = "checkpoint.json"
SETTINGS: Final = "settings.yaml"
BEST: Final = "best.safetensors"
LAST: Final = "last.safetensors"
WINDOWS: Final = "windows.safetensors"
FILES: Final = (SETTINGS, BEST, LAST, WINDOWS)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        number: from 1.
        train_loss, validation_loss: averages of the last segment.
        accuracy: share of validation samples whose chosen action is the best in hindsight.
        regret: average return given up against hindsight, in ATR.
    """

    number: int
    train_loss: float
    validation_loss: float
    accuracy: float
    regret: float


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `checkpoint.json`; `digest` as in a contract."""

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


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read and verify a checkpoint folder.

    Raises:
        CheckpointInvalid: missing, incomplete, changed, or of other dimensions.
    """
    folder = Path(folder)
    text, description = _read_description(folder)
    for name, expected in description.files.items():
        if (found := _sha256(folder / name)) != expected:
            raise CheckpointInvalid(f"{folder / name}: expected sha256 {expected}, found {found}")
    model = HierarchicalReasoningModel.load_model(folder / BEST)
    settings = load_settings(folder / SETTINGS)
    if settings != model.settings:
        raise CheckpointInvalid(f"{folder}: {SETTINGS} differs from the settings inside {BEST}")
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

    Raises:
        CheckpointInvalid: the folder exists and is not empty, or cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise CheckpointInvalid(
                    f"{self.folder}: expected a new or empty folder; choose another or remove it"
                )
        except OSError as error:
            raise CheckpointInvalid(f"{self.folder}: {error}") from error

    def begin(self, settings: Settings, windows: Windows) -> None:
        """Make the folder and write what does not change any more."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointInvalid(
                f"{self.folder}: expected to make this folder: {error}"
            ) from error
        self._write(SETTINGS, lambda path: path.write_text(render(settings), encoding="utf-8"))
        self._write(WINDOWS, windows.save)

    def save_weights(self, model: HierarchicalReasoningModel, best: bool) -> None:
        """Write the weights of an epoch."""
        for name in (LAST, BEST) if best else (LAST,):
            self._write(name, model.save_model)

    def describe(
        self,
        manifest: Manifest,
        epochs: tuple[Epoch, ...],
        best_epoch: int,
        train_samples: int,
        validation_samples: int,
        boundary: int,
    ) -> None:
        """Write `checkpoint.json` over what was written so far."""
        description = Description(
            format_version=FORMAT_VERSION,
            digest="",
            feature_version=FEATURE_VERSION,
            features=FEATURES,
            account=ACCOUNT,
            vocabulary=manifest.vocabulary,
            series=manifest.series,
            train_samples=train_samples,
            validation_samples=validation_samples,
            boundary=boundary,
            best_epoch=best_epoch,
            epochs=epochs,
            files={name: _sha256(self.folder / name) for name in FILES},
        )
        self._write(MANIFEST, lambda path: path.write_bytes(seal(description)))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        partial = self.folder / f".{name}.partial"
        try:
            write(partial)
            os.replace(partial, self.folder / name)
        except OSError as error:
            raise CheckpointInvalid(
                f"{self.folder / name}: expected to write this file: {error}"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def _read_description(folder: Path) -> tuple[bytes, Description]:
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
    except (SchemaMismatch, SealBroken) as error:
        raise CheckpointInvalid(f"{file}: {error}") from error
    if description.files.keys() != set(FILES):
        raise CheckpointInvalid(f"{file}: files: expected {FILES}, found {[*description.files]}")
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
