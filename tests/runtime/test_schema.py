from dataclasses import dataclass
from typing import Any, Literal

import pytest

from hrm_runtime.schema import SchemaMismatch, build


@dataclass(frozen=True)
class Inner:
    count: int


@dataclass(frozen=True)
class Outer:
    on: bool
    ratio: float
    name: str
    nothing: None
    kind: Literal["a", 1]
    either: int | str
    items: tuple[Inner, ...]
    table: dict[str, Inner]
    free: Any


GOOD: dict[str, Any] = {
    "on": True,
    "ratio": 0.5,
    "name": "x",
    "nothing": None,
    "kind": "a",
    "either": 3,
    "items": [{"count": 1}, {"count": 2}],
    "table": {"one": {"count": 1}},
    "free": {"any": [1, None]},
}


def test_a_document_becomes_its_dataclass() -> None:
    assert build(Outer, GOOD) == Outer(
        on=True,
        ratio=0.5,
        name="x",
        nothing=None,
        kind="a",
        either=3,
        items=(Inner(1), Inner(2)),
        table={"one": Inner(1)},
        free={"any": [1, None]},
    )


@pytest.mark.parametrize(
    ("name", "value"), [("kind", 1), ("either", "text"), ("items", []), ("table", {})]
)
def test_every_declared_alternative_is_accepted(name: str, value: object) -> None:
    expected = () if value == [] else value
    assert getattr(build(Outer, {**GOOD, name: value}), name) == expected


def test_an_integer_is_a_number() -> None:
    ratio = build(Outer, {**GOOD, "ratio": 2}).ratio
    assert (ratio, type(ratio)) == (2.0, float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("on", 1, "on: expected true or false, found 1"),
        ("ratio", "0.5", "ratio: expected a number, found '0.5'"),
        ("ratio", True, "ratio: expected a number, found True"),
        ("name", None, "name: expected a string, found None"),
        ("nothing", 0, "nothing: expected null, found 0"),
        ("kind", "b", "kind: expected 'a' or 1, found 'b'"),
        ("kind", True, "kind: expected 'a' or 1, found True"),
        ("either", 0.5, r"either: expected an integer, found 0\.5"),
        ("items", {}, r"items: expected a list, found \{\}"),
        ("items", [{"count": 1}, 2], r"items\[1\]: expected an object, found 2"),
        ("items", [{"count": 1.0}], r"items\[0\]\.count: expected an integer, found 1\.0"),
        ("table", [], r"table: expected an object, found \[\]"),
        ("table", {"one": {}}, r"table\.one\.count: expected, but missing"),
        ("table", {"a": {"count": 1, "x": 0}}, r"table\.a\.x: unknown; expected only count"),
        ("name", ["long"] * 20, r"name: expected a string, found \['long', .*\.\.\.$"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_path(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(SchemaMismatch, match=f"^{message}"):
        build(Outer, {**GOOD, name: value})


@pytest.mark.parametrize("name", GOOD)
def test_every_field_must_be_there(name: str) -> None:
    with pytest.raises(SchemaMismatch, match=f"^{name}: expected, but missing"):
        build(Outer, {key: value for key, value in GOOD.items() if key != name})


def test_no_other_field_may_be_there() -> None:
    with pytest.raises(SchemaMismatch, match=r"^more: unknown; expected only on, ratio, name"):
        build(Outer, {**GOOD, "more": 1})


@pytest.mark.parametrize("document", [[], None, "text", 3])
def test_a_document_is_an_object(document: object) -> None:
    with pytest.raises(SchemaMismatch, match=r"^document: expected an object, found"):
        build(Outer, document)
