"""Two documents: what differs is told, and nothing else."""

from typing import Any

import pytest

from hrm_runtime.market.instruments import Instrument, Timeframe
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.differences import differences


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({}, {}, ""),
        ({"a": {"b": [1], "c": 2}}, {"a": {"b": [1], "c": 2}}, ""),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, "a.b: left 1, right 3"),
        ({"a": {"b": 1}}, {"a": None}, "a: left {'b': 1}, right None"),
        ({"a": 1, "b": 2}, {"b": 2, "c": 3}, "keys: left only: a; keys: right only: c"),
        ({"x": {"a": 1, "b": 2}}, {"x": {}}, "x: left only: a, b"),
        (
            {"x": {f"n{i}": i for i in range(12)}},
            {"x": {}},
            "x: left only: n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, and 2 more",
        ),
        (
            {str(i): i for i in range(11)},
            {str(i): -1 for i in range(11)},
            "; ".join(f"{i}: left {i}, right -1" for i in range(10)) + "; and 1 more",
        ),
    ],
)
def test_what_differs_is_told(one: dict[str, Any], other: dict[str, Any], told: str) -> None:
    assert differences(one, other, ("left", "right")) == told


def instrument(number: int, **facts: Any) -> Instrument:
    known = {"type": "stock", "lot_size": 1, "tick_size": 0.05, "premium_min": 0, "premium_max": 1}
    return Instrument(id=number, **{**known, **facts})


ONE = Vocabulary(
    instruments={"unknown": instrument(0), "A": instrument(1), "B": instrument(2)},
    timeframes={"5": Timeframe(id=1, seconds=300)},
)


@pytest.mark.parametrize(
    ("instruments", "told"),
    [
        (ONE.instruments, ""),
        ({"unknown": instrument(0), "B": instrument(1)}, "instruments: one only: A"),
        (
            {"unknown": instrument(0), "A": instrument(1, lot_size=75), "B": instrument(2)},
            "instruments.A.lot_size: one 1, other 75",
        ),
        (
            {"unknown": instrument(0), "A": instrument(2), "B": instrument(1)},
            "instruments.A.id: one 1, other 2; instruments.B.id: one 2, other 1",
        ),
    ],
    ids=["same", "fewer", "facts", "ids"],
)
def test_ids_are_told_only_where_the_names_are_the_same(
    instruments: dict[str, Instrument], told: str
) -> None:
    other = Vocabulary(instruments=instruments, timeframes=ONE.timeframes)
    assert ONE.differences(other, ("one", "other")) == told
    assert ONE.differences(other, ("one", "other"), ids=False) == ("" if ".id" in told else told)
