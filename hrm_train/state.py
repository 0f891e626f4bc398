"""Where training stands: everything the next step depends on, in one safetensors file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hrm_runtime.schema import SchemaMismatch, build
from hrm_train.checkpoint import Epoch
from hrm_train.errors import CheckpointInvalid

FORMAT_VERSION: Final = 1

_KEY: Final = "training"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a training run is a function of. A run is resumed only from the same.

    Attributes:
        settings: as JSON.
        data: sha256 of the training tensors.
        boundary, judged_from, judged_until: the split, as in `hrm_train.checkpoint.Description`.
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
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                stored = build(_Stored, json.loads((file.metadata() or {})[_KEY]))
        except (OSError, SafetensorError, KeyError, ValueError, SchemaMismatch) as error:
            raise CheckpointInvalid(f"{path}: expected a state of training: {error}") from error
        if stored.format_version != FORMAT_VERSION:
            raise CheckpointInvalid(
                f"{path}: expected format version {FORMAT_VERSION}, found {stored.format_version}; "
                "resume with the library that wrote it, or go on from its weights with --init-from"
            )
        return cls(stored.origin, stored.position, tensors)


def require_same(saved: Origin, now: Origin, source: Path) -> None:
    """Hold a saved state to what is to be resumed.

    Raises:
        CheckpointInvalid: naming every setting and every other origin that differs.
    """
    ours, theirs = (_flat(asdict(origin)) for origin in (now, saved))
    differing = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if differing:
        shown = "; ".join(
            f"{name}: now {ours.get(name)}, saved {theirs.get(name)}" for name in differing
        )
        raise CheckpointInvalid(
            f"{source}: expected to resume what was begun, but it differs in {shown}; resume with "
            "the same settings and data, or go on from its weights with --init-from"
        )


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted path."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
