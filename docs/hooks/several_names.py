"""Reads our docstrings' `high, low: prices` as one entry for each name, with the same words.

A Google docstring has one name in an entry. Apart, each of ours is held to the signature and gets
its type.
"""

import re
from typing import Any, Final

from griffe import Extension, Object

ENTRY: Final = re.compile(
    r"^ {4}(?P<names>\w+(?:, \w+)+):(?P<words>.*(?:\n {5,}.*)*)$", re.MULTILINE
)
"""One of a section: its names, and its words to where the next begins."""


def apart(docstring: str) -> str:
    """The docstring with an entry for each name."""

    def entries(entry: re.Match[str]) -> str:
        return "\n".join(f"    {name}:{entry['words']}" for name in entry["names"].split(", "))

    return ENTRY.sub(entries, docstring)


class SeveralNames(Extension):
    """What griffe is told to load."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Take one docstring's entries apart: griffe calls this for each object that it reads."""
        if obj.docstring is not None:
            obj.docstring.value = apart(obj.docstring.value)
