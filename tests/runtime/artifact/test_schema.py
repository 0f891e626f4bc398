from dataclasses import dataclass
from typing import Any, Literal

import pytest

from hrm_runtime.artifact.schema import (
    MOST_CHARACTERS,
    MOST_DEPTH,
    SchemaMismatch,
    SealBroken,
    build,
    parse,
)


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


# what is parsed


def nested(depth: int) -> bytes:
    """Lists and objects in turn, around a string of brackets that count for nothing."""
    opened = b'[{"[":' * (depth // 2) + b"[" * (depth % 2)
    closed = b"]" * (depth % 2) + b"}]" * (depth // 2)
    return opened + rb'"[[{\"[["' + closed


def depth_of(document: Any) -> int:
    if isinstance(document, dict):
        return 1 + depth_of(document["["])
    return 1 + depth_of(document[0]) if isinstance(document, list) else 0


@pytest.mark.parametrize("depth", [0, 1, 2, MOST_DEPTH - 1, MOST_DEPTH])
def test_a_document_as_deep_as_may_be_is_parsed(depth: int) -> None:
    assert depth_of(parse(nested(depth))) == depth


@pytest.mark.parametrize("depth", [MOST_DEPTH + 1, MOST_DEPTH + 2, 1_000_001])
def test_a_deeper_one_is_refused_at_the_bracket_that_is_too_much(depth: int) -> None:
    text = nested(depth)
    place = (MOST_DEPTH // 2) * len('[{"[":')
    with pytest.raises(
        SealBroken, match=rf"^expected canonical JSON, .*nested deeper than 64, at byte {place}\)$"
    ):
        parse(text)


def test_siblings_are_no_depth() -> None:
    assert parse(b"[" + b"[]," * 1_000 + b"{}]") == [*([[]] * 1_000), {}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"-1.7976931348623157e+308", -1.7976931348623157e308),
        (b"5e-324", 5e-324),
        (b"9" * MOST_CHARACTERS, int("9" * MOST_CHARACTERS)),
        (b"-9223372036854775808", -(2**63)),
        (b"0." + b"1" * (MOST_CHARACTERS - 2), 1 / 9),
    ],
)
def test_a_number_of_any_size_we_use_is_parsed(text: bytes, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"9" * (MOST_CHARACTERS + 1), 33),
        (b"-" + b"9" * MOST_CHARACTERS, 33),
        (b"9" * 1_000_000, 1_000_000),
        (b"0." + b"3" * 1_000_000, 1_000_002),
        (b"1e" + b"0" * 1_000_000, 1_000_002),
    ],
    ids=["an integer", "below zero", "a million digits", "a million decimals", "an exponent"],
)
def test_a_longer_number_is_refused_unread(text: bytes, found: int) -> None:
    with pytest.raises(
        SealBroken, match=rf"^expected .*a number of {found} characters, more than 32\)$"
    ):
        parse(text)


@pytest.mark.parametrize("text", [b'"' + rb"\"" * 500_000, b'"\\', b'"[[', b'["a", "'])
def test_a_string_without_end_is_refused(text: bytes) -> None:
    with pytest.raises(SealBroken, match=r"found something else .(Unterminated|Invalid)"):
        parse(text)
