"""What differs between two documents, in words, and nothing of what is equal."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

MOST: Final = 10
"""Differences, and names in one of them, that are told one by one."""


def differences(one: Mapping[str, Any], other: Mapping[str, Any], called: tuple[str, str]) -> str:
    """Every value that differs, by dotted path, and the names that only one of both has.

    Args:
        one, other: documents of nested mappings.
        called: what each is called.

    Returns:
        Phrases, divided by semicolons; empty where nothing differs.
    """
    return _shortened([*_phrases(one, other, called, "")], "; ")


def _phrases(
    one: Mapping[str, Any], other: Mapping[str, Any], called: tuple[str, str], path: str
) -> Iterator[str]:
    for names, who in (
        ([name for name in one if name not in other], called[0]),
        ([name for name in other if name not in one], called[1]),
    ):
        if names:
            yield f"{path.rstrip('.') or 'keys'}: {who} only: {_shortened(names, ', ')}"
    for name in [name for name in one if name in other]:
        found = one[name], other[name]
        if isinstance(found[0], Mapping) and isinstance(found[1], Mapping):
            yield from _phrases(*found, called, f"{path}{name}.")
        elif found[0] != found[1]:
            yield f"{path}{name}: {called[0]} {found[0]}, {called[1]} {found[1]}"


def _shortened(parts: list[str], divider: str) -> str:
    more = [f"and {len(parts) - MOST:,} more"] if len(parts) > MOST else []
    return divider.join([*parts[:MOST], *more])
