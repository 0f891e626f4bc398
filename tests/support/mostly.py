"""A strategy with weights: `one_of` flattens what it is given, and forgets how often it is."""

from typing import Any

from hypothesis import strategies as st


def mostly(usual: Any, other: Any, times: int = 5) -> st.SearchStrategy[Any]:
    """`usual`, `times` as often as `other`, which examples shrink away from."""
    return st.integers(0, times).flatmap(lambda number: other if number == times else usual)
