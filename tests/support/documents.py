"""The programs and commands that a document shows, as they stand in it."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"```(\w*)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        heading: of the section that it stands in.
        language: that it is marked with: python, sh, or none where it shows output.
        line: in the document, of its first line.
        text: what is between the fences.
    """

    heading: str
    language: str
    line: int
    text: str


def blocks(document: Path) -> list[Block]:
    """Those of a Markdown file, in order. Its fences must be closed."""
    found, heading, opened = [], "", None
    lines = document.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        fence = _FENCE.fullmatch(line.rstrip())
        if opened is None and line.startswith("## "):
            heading = line[3:].strip()
        elif fence and opened is None:
            opened = number + 1, fence[1]
        elif fence and opened is not None:
            first, language = opened
            found.append(Block(heading, language, first + 1, "".join(lines[first:number])))
            opened = None
    assert opened is None, f"{document}, line {opened[0]}: expected its end"
    return found


def commands(block: Block) -> list[tuple[int, str]]:
    """The commands of a block of sh by line, without comments, continued lines put together."""
    found, begun = [], ""
    for number, line in enumerate(block.text.splitlines(), block.line):
        begun += re.sub(r"(^|\s)#.*", "", line).strip()
        if begun.endswith("\\"):
            begun = begun.removesuffix("\\")
        elif begun:
            found.append((number, begun))
            begun = ""
    return found
