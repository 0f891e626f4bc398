"""Frozen dataclasses to and from JSON, strictly.

Reading: every field present, none unknown, every type exact. Writing: one canonical form, and a
seal over it, so that a reader can refuse any changed byte.
"""

import hashlib
import json
import re
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

MOST_DEPTH: Final = 64
"""Lists and objects within each other. No document of ours has ten; a parser's own bound is that of
the host's stack, or none."""

MOST_CHARACTERS: Final = 32
"""Of one number: more than any float64 or 64-bit integer is written with. Reading an integer takes
time quadratic in its digits, and an immense one fits no float that it is compared with."""

_STRUCTURE: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[][{}]', re.DOTALL)
"""A string, skipped whole even where it has no end, or what opens or closes a list or an object."""

_STEP: Final = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}

T = TypeVar("T")


class Sealed(Protocol):
    """A dataclass with a `digest`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def digest(self) -> str:
        """The sha256 of the canonical text with this field empty."""


S = TypeVar("S", bound=Sealed)


class SchemaMismatch(Exception):
    """A value is not of the declared type; the message gives its path within the document."""


class SealBroken(Exception):
    """A text is not the sealed, canonical writing of anything."""


class LinesConverted(SealBroken):
    """A text is what `seal` wrote but for its line ends."""


def build(kind: type[T], value: object, path: str = "") -> T:
    """An instance of the dataclass `kind` from parsed JSON.

    Supported field types: bool, int, float (an int is accepted), str, None, Any (any JSON),
    `Literal`, unions, `tuple[X, ...]` from lists, `dict[str, X]` from objects, and dataclasses.

    Raises:
        SchemaMismatch: `{path}: expected ..., found ...`.
    """
    built: T = _build(kind, value, path)
    return built


def canonical(document: Sealed) -> bytes:
    """The one way to write a document: sorted keys, two-space indent, UTF-8, a final newline."""
    return _written(asdict(document))


def digest(document: Sealed) -> str:
    """The sha256 of the canonical text with the field `digest` empty."""
    return _digest(asdict(document))


def seal(document: Sealed) -> bytes:
    """The canonical text of `document` with its digest filled in."""
    return canonical(replace(document, digest=digest(document)))


def parse(text: bytes) -> object:
    """Parsed JSON, in time and memory proportional to its length whatever it holds.

    Raises:
        SealBroken: not JSON, nested deeper than `MOST_DEPTH`, or a number longer than
            `MOST_CHARACTERS`.
    """
    try:
        _require_depth(text)
        return json.loads(
            text.decode(),
            parse_constant=_refuse_constant,
            parse_int=lambda digits: int(_short(digits)),
            parse_float=lambda digits: float(_short(digits)),
        )
    except (ValueError, RecursionError) as error:
        raise SealBroken(f"expected canonical JSON, found something else ({error})") from error


def unseal(kind: type[S], document: object, text: bytes) -> S:
    """The dataclass that `seal` wrote as `text`; `document` is `text` parsed.

    Raises:
        SchemaMismatch: as `build`.
        LinesConverted: the text would be right with LF where it has CRLF.
        SealBroken: the text is not its canonical form, or the digest differs.
    """
    try:
        built = build(kind, document)
        values = asdict(built)
        rewritten = _written(values)
    except (ValueError, OverflowError, RecursionError) as error:
        raise SealBroken(f"expected its canonical form, found what has none ({error})") from error
    if rewritten not in (text, _with_lf(text)):
        raise SealBroken("expected its canonical form; it was edited or damaged")
    if built.digest != (found := _digest(values)):
        raise SealBroken(f"expected digest {built.digest}, found {found}")
    if rewritten != text:
        raise LinesConverted
    return built


def is_converted(content: bytes, sha256: str) -> bool:
    """Whether a file has another hash than `sha256` only because its lines end in CRLF."""
    converted = _with_lf(content)
    return converted != content and hashlib.sha256(converted).hexdigest() == sha256


def converted(name: str) -> str:
    """What to tell of the file `name` where only its line ends are not what was written."""
    return (
        f"{name}: expected lines that end in LF, as they were written, found CRLF: git "
        "(core.autocrlf), an FTP client or an editor converted them. In git, add the line "
        f"`{name} -text` to .gitattributes, delete the file and `git checkout` it; elsewhere copy "
        "it again, as binary"
    )


def _written(values: Mapping[str, Any]) -> bytes:
    """The canonical text of a document's values."""
    text = json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_written({**values, "digest": ""})).hexdigest()


def _with_lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n")


def _require_depth(text: bytes) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        depth += _STEP.get(match[0], 0)
        if depth > MOST_DEPTH:
            raise ValueError(f"nested deeper than {MOST_DEPTH}, at byte {match.start()}")


def _short(number: str) -> str:
    if len(number) > MOST_CHARACTERS:
        raise ValueError(f"a number of {len(number)} characters, more than {MOST_CHARACTERS}")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


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
    hints = _hints(kind)
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


_hints = cache(get_type_hints)  # evaluating annotations takes longer than reading by them

_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "null",
}
