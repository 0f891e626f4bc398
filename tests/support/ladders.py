"""The ladder of an export as `hrm` prints it."""

import re

LADDER = ["stage", "against", "windows", "largest difference", "decisions equal", ""]
"""The head of its table."""


def rows_of(printed: str) -> list[list[str]]:
    """The rows of the tables in what was printed."""
    lines = [re.split("[┃│]", line) for line in printed.splitlines() if line[:1] in "┃│"]
    return [[cell.strip() for cell in line[1:-1]] for line in lines]
