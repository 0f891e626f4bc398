"""What a path holds, so that one given to the wrong verb is answered by the right one.

Names of other packages' files stand here again: `hrm inspect` runs without torch.
"""

import json
import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from hrm_runtime import BadInput
from hrm_runtime.artifact.contract import CONTRACT, GOLDEN, MODEL
from hrm_runtime.market.series import SUFFIXES

CHECKPOINT: Final = "checkpoint.json"
STATE: Final = "last.safetensors"
FOLD: Final = "fold-1"
TENSORS_SUFFIX: Final = ".safetensors"
JOURNAL_SUFFIX: Final = ".sqlite"


class Kind(StrEnum):
    """What verbs take and write, as it is called."""

    ARTIFACT = "an artifact"
    CHECKPOINT = "a checkpoint"
    UNFINISHED = "training before the end of its first epoch"
    FOLDS = "a folder of folds"
    SETTINGS = "a settings file"
    BARS = "bars"
    TENSORS = "prepared tensors"
    WEIGHTS = "weights alone"
    JOURNAL = "a journal"
    PART = "a file of an artifact or a checkpoint"


TAKEN_BY: Final[Mapping[Kind, str]] = {
    Kind.ARTIFACT: "for hrm inspect, predict, trace, backtest, bench, parity and replay --artifact",
    Kind.CHECKPOINT: "for hrm export, which makes an artifact, evaluate and train --init-from",
    Kind.UNFINISHED: "go on with hrm train --resume",
    Kind.FOLDS: "for hrm evaluate and train --folds --init-from; each fold in it is a checkpoint",
    Kind.SETTINGS: "for hrm prepare and train",
    Kind.BARS: "for --data and --calibration",
    Kind.TENSORS: "for --data of hrm train and evaluate",
    Kind.WEIGHTS: "give the folder that they are in",
    Kind.JOURNAL: "for hrm replay",
    Kind.PART: "give the folder that it is in",
}

WANTED: Final[Mapping[str, frozenset[Kind]]] = {
    "settings": frozenset({Kind.SETTINGS}),
    "checkpoint": frozenset({Kind.CHECKPOINT}),
    "init_from": frozenset({Kind.CHECKPOINT, Kind.FOLDS}),
    "artifact": frozenset({Kind.ARTIFACT}),
    "journal": frozenset({Kind.JOURNAL}),
    "data": frozenset({Kind.BARS}),
    "calibration": frozenset({Kind.BARS}),
    "golden": frozenset({Kind.BARS}),
}
"""By parameter of a verb."""

ALSO: Final[Mapping[tuple[str, str], Kind]] = {
    ("train", "data"): Kind.TENSORS,
    ("evaluate", "data"): Kind.TENSORS,
    ("evaluate", "checkpoint"): Kind.FOLDS,
}
"""By verb and parameter."""


def require(verb: str, arguments: Mapping[str, Any]) -> None:
    """Hold the paths that a verb was given to what it takes, as far as they are known at a glance.

    Raises:
        BadInput: one is something that another verb takes.
    """
    for parameter, wanted in WANTED.items():
        accepted = wanted | {ALSO[key] for key in [(verb, parameter)] if key in ALSO}
        for path in _paths(arguments.get(parameter)):
            found = kinds(path)
            if found and not accepted.intersection(found):
                expected = " or ".join(kind for kind in Kind if kind in accepted)
                raise BadInput(
                    f"{path}: expected {expected}, found {found[0]}: {TAKEN_BY[found[0]]}"
                )


def kinds(path: Path) -> list[Kind]:
    """Everything that a path may be taken for, the likeliest first; nothing where it is not known.

    No content is read but the header of a tensor file.
    """
    try:
        if path.is_dir():
            return [*_kinds_of_folder(set(os.listdir(path)))]
        return _kinds_of_file(path) if path.is_file() else []
    except OSError:  # for the verb to tell
        return []


def _kinds_of_file(path: Path) -> list[Kind]:
    suffix = path.suffix.lower()
    if path.name in {CONTRACT, MODEL, GOLDEN, CHECKPOINT}:
        return [Kind.PART]
    if suffix == TENSORS_SUFFIX:
        return [Kind.TENSORS if "manifest" in _metadata(path) else Kind.WEIGHTS]
    by_suffix = {".yaml": Kind.SETTINGS, ".yml": Kind.SETTINGS, JOURNAL_SUFFIX: Kind.JOURNAL}
    by_suffix |= dict.fromkeys(SUFFIXES, Kind.BARS)
    return [by_suffix[suffix]] if suffix in by_suffix else []


def _kinds_of_folder(names: set[str]) -> Iterable[Kind]:
    suffixes = {Path(name).suffix.lower() for name in names}
    if CONTRACT in names:
        yield Kind.ARTIFACT
    if CHECKPOINT in names:
        yield Kind.CHECKPOINT
    elif STATE in names:
        yield Kind.UNFINISHED
    if FOLD in names:
        yield Kind.FOLDS
    if JOURNAL_SUFFIX in suffixes:
        yield Kind.JOURNAL
    if suffixes.intersection(SUFFIXES):
        yield Kind.BARS


def _metadata(path: Path) -> Mapping[str, Any]:
    """What stands beside the tensors of a safetensors file; nothing where it is no such file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            return {}
        try:
            header = json.loads(file.read(size))
        except ValueError:
            return {}
    found = header.get("__metadata__") if isinstance(header, dict) else None
    return found if isinstance(found, dict) else {}


def _paths(value: object) -> list[Path]:
    given = value if isinstance(value, list) else [value]
    return [path for path in given if isinstance(path, Path)]
