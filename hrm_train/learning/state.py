"""Where training stands: everything the next step depends on, in one safetensors file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hrm_runtime.artifact.schema import SchemaMismatch, build
from hrm_train.differences import differences
from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import Epoch

FORMAT_VERSION: Final = 1

_KEY: Final = "training"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a training run is a function of. A run is resumed only from the same.

    Attributes:
        settings: as JSON.
        data: sha256 of the training tensors.
        boundary, judged_from, judged_until: the split, as in `checkpoint.Description`.
        initialized_from: sha256 of a checkpoint.
        quantised: whether quantisers are on.
    """

    settings: Any
    data: str
    boundary: int
    judged_from: int
    judged_until: int | None
    initialized_from: str | None
    quantised: bool


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far training has come.

    Attributes:
        step: optimizer steps done.
        epochs: those done.
        loss_sum, loss_steps: of the epoch under way.
    """

    step: int
    epochs: tuple[Epoch, ...]
    loss_sum: float
    loss_steps: int

    def told(self, of: int) -> str:
        """Where that is in training of so many epochs, in words."""
        done = len(self.epochs)
        if self.loss_steps:
            return f"step {self.step:,}, in epoch {done + 1} of {of}"
        return f"step {self.step:,}, the end of epoch {done} of {of}" if done else "no step yet"


@dataclass(frozen=True, kw_only=True)
class _Stored:
    format_version: int
    origin: Origin
    position: Position


@dataclass(frozen=True, eq=False)
class State:
    """A place in training: `tensors` holds weights, moments, averages and slots by name."""

    origin: Origin
    position: Position
    tensors: dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        stored = _Stored(format_version=FORMAT_VERSION, origin=self.origin, position=self.position)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.tensors.items()}
        # not `save_file`, which leaves a file of its own beside this one when it is killed
        path.write_bytes(save(tensors, {_KEY: json.dumps(asdict(stored))}))

    @classmethod
    def load(cls, path: Path) -> "State":
        """Read a file written by `save`.

        Raises:
            CheckpointInvalid: not such a file.
        """
        with _opened(path) as (file, stored):
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls(stored.origin, stored.position, tensors)

    @staticmethod
    def position_in(path: Path) -> Position:
        """How far the training in a file written by `save` had come; no tensor is read.

        Raises:
            CheckpointInvalid: not such a file.
        """
        with _opened(path) as (_, stored):
            return stored.position


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, _Stored]]:
    """A file of `State.save`, its tensors not read yet, and what stands beside them."""
    try:
        with safe_open(str(path), framework="pt") as file:
            stored = build(_Stored, json.loads((file.metadata() or {})[_KEY]))
            if stored.format_version != FORMAT_VERSION:
                raise CheckpointInvalid(
                    f"{path}: expected format version {FORMAT_VERSION}, found "
                    f"{stored.format_version}; resume with the library that wrote it, or go on "
                    "from its weights with --init-from"
                )
            yield file, stored
    except (OSError, SafetensorError, KeyError, ValueError, SchemaMismatch) as error:
        raise CheckpointInvalid(f"{path}: expected a state of training: {error}") from error


def require_same(saved: Origin, now: Origin, source: Path) -> None:
    """Hold a saved state to what is to be resumed.

    Raises:
        CheckpointInvalid: naming every setting and every other origin that differs.
    """
    if differing := differences(asdict(now), asdict(saved), ("now", "saved")):
        raise CheckpointInvalid(
            f"{source}: expected to resume what was begun, but it differs in {differing}; resume "
            "with the same settings and data, or go on from its weights with --init-from"
        )
