"""Names of settings: which there are, where each belongs, and which one was meant."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Final, get_args, get_origin

from hrm_train.settings.schema import Network, Section, Settings

NETWORK: Final = "hierarchical_reasoning_model"
"""The section that stands at the top of every file."""

SHARED: Final = tuple(name for name in Settings.model_fields if name != NETWORK)
"""Sections whose names a host's file may have too; in any file ours may stand inside `NETWORK`."""

_CLOSE: Final = 0.8
"""How alike two names are, of 1, to be taken for one."""

_LETTERS: Final = 2
"""By how many letters, at most, one of them is longer: a long name is no other with a word more."""


def facts_at(path: Sequence[str]) -> type[Section] | None:
    """What each name in a section is mapped to; None of a section of fixed keys."""
    kind = _kind(path)
    return get_args(kind)[1] if get_origin(kind) is dict else None


def keys_at(path: Sequence[str]) -> list[str]:
    """The keys that a section may have in a file; of one of facts by name, those of the facts."""
    kind = facts_at(path) or _kind(path)
    return [*kind.model_fields, *(SHARED if kind is Network else ())]


def closest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that was meant, up to case, dashes and a letter or two."""
    meant = _folded(name)
    folded = {_folded(one): one for one in known}
    likely = [one for one in folded if abs(len(one) - len(meant)) <= _LETTERS]
    close = get_close_matches(meant, likely, n=1, cutoff=_CLOSE)
    return folded[close[0]] if close else None


def same(name: str, other: str) -> bool:
    """Whether two names are one up to case and dashes."""
    return _folded(name) == _folded(other)


def inner_key(name: str) -> str | None:
    """The key in a section of fixed keys that was meant."""
    return closest(name, {key for _, kind in _sections() for key in kind.model_fields})


def dotted(name: str) -> list[str]:
    """The path of the setting that a key with dots in it names; empty where it names none."""
    path: list[str] = []
    for part in name.split("."):
        kind = _kind(path)
        if get_origin(kind) is dict:
            path.append(part)
            continue
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            return []
        meant = closest(
            part, keys_at(path) if path else [*kind.model_fields, *Network.model_fields]
        )
        if meant is None:
            return []
        if path == [NETWORK] and meant in SHARED:
            path = []
        elif not path and meant in Network.model_fields:
            path = [NETWORK]
        path.append(meant)
    return path if len(path) > 1 and "." in name else []


def homes(key: str) -> list[str]:
    """The sections of fixed keys that have this one."""
    return [".".join(path) for path, kind in _sections() if key in kind.model_fields]


def _folded(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def _kind(path: Sequence[str]) -> Any:
    kind: Any = Settings
    for part in path:
        named = get_origin(kind) is dict
        kind = get_args(kind)[1] if named else kind.model_fields[part].annotation
    return kind


def _sections(
    path: tuple[str, ...] = (), kind: type[Section] = Settings
) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield (*path, name), inner
            yield from _sections((*path, name), inner)
