"""Frozen dataclasses from JSON, strictly: every field present, none unknown, every type exact."""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class SchemaMismatch(Exception):
    """A value is not of the declared type; the message gives its path within the document."""


def build(kind: type[T], value: object, path: str = "") -> T:
    """An instance of the dataclass `kind` from parsed JSON.

    Supported field types: bool, int, float (an int is accepted), str, None, Any (any JSON),
    `Literal`, unions, `tuple[X, ...]` from lists, `dict[str, X]` from objects, and dataclasses.

    Raises:
        SchemaMismatch: `{path}: expected ..., found ...`.
    """
    built: T = _build(kind, value, path)
    return built


def _build(kind: Any, value: object, path: str) -> Any:  # noqa: PLR0911, one per kind
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _build_dataclass(kind, value, path)
    if origin is tuple:
        items = _expect(value, list, "a list", path)
        return tuple(_build(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        items = _expect(value, Mapping, "an object", path)
        return {str(k): _build(arguments[1], v, _join(path, str(k))) for k, v in items.items()}
    if origin is Literal:
        if not any(type(value) is type(allowed) and value == allowed for allowed in arguments):
            _refuse(" or ".join(map(repr, arguments)), value, path)
        return value
    if origin in (Union, types.UnionType):
        return _build_union(arguments, value, path)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        _refuse(_NAMES[kind], value, path)
    return value


def _build_dataclass(kind: Any, value: object, path: str) -> Any:
    given = _expect(value, Mapping, "an object", path)
    names = [field.name for field in fields(kind)]
    if missing := [name for name in names if name not in given]:
        raise SchemaMismatch(f"{_join(path, missing[0])}: expected, but missing")
    if unknown := sorted(set(given) - set(names)):
        raise SchemaMismatch(
            f"{_join(path, unknown[0])}: unknown; expected only {', '.join(names)}"
        )
    hints = get_type_hints(kind)
    return kind(**{name: _build(hints[name], given[name], _join(path, name)) for name in names})


def _build_union(kinds: tuple[Any, ...], value: object, path: str) -> Any:
    mismatch: SchemaMismatch | None = None
    for kind in kinds:
        try:
            return _build(kind, value, path)
        except SchemaMismatch as error:
            mismatch = mismatch or error
    assert mismatch is not None
    raise mismatch


def _expect(value: object, kind: type, name: str, path: str) -> Any:
    if not isinstance(value, kind):
        _refuse(name, value, path)
    return value


def _refuse(expected: str, value: object, path: str) -> None:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    raise SchemaMismatch(f"{path or 'document'}: expected {expected}, found {shown}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "null",
}
