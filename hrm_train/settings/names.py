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
"""How alike two names are, of 1, to be taken for one: a letter or two apart."""


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
    folded = {_folded(one): one for one in known}
    close = get_close_matches(_folded(name), folded, n=1, cutoff=_CLOSE)
    return folded[close[0]] if close else None


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
