"""Artifacts that must be refused: damaged by accident, or made by someone who means harm."""

import hashlib
import io
import json
import os
import random
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrm_runtime.artifact.folder import MOST_BYTES

FILES = ("contract.json", "model.onnx", "golden.npz")
CONTRACT, MODEL, GOLDEN = FILES

Edit = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Damage:
    """One way to spoil a copy of an artifact.

    Attributes:
        kind, name: which.
        make: spoils the folder it is given.
        pinned: whether what it makes is a sound artifact, though another: only the pin refuses it.
    """

    kind: str
    name: str
    make: Callable[[Path], object]
    pinned: bool = False


def written(document: Any) -> bytes:
    """A document in its canonical form."""
    text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()


def sealed(document: dict[str, Any]) -> bytes:
    """A document in its canonical form, with the digest of that."""
    digest = hashlib.sha256(written({**document, "digest": ""})).hexdigest()
    return written({**document, "digest": digest})


def edit(folder: Path, change: Edit, write: Callable[[dict[str, Any]], bytes] = sealed) -> None:
    """Change the contract, and hash it again unless `write` is `written`."""
    document = json.loads((folder / CONTRACT).read_bytes())
    change(document)
    (folder / CONTRACT).write_bytes(write(document))


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and promise its new hash."""
    (folder / name).write_bytes(content)
    edit(folder, lambda d: d["files"].update({name: hashlib.sha256(content).hexdigest()}))


def flip(content: bytes, bit: int) -> bytes:
    """`content` with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# protobuf


def varint(value: int) -> bytes:
    """An integer >= 0 as protobuf writes it."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    """One field of a message. A graph followed by fields is that graph with them added."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def initializer(*sizes: int, more: bytes = b"") -> bytes:
    """A model's fields: a float32 initializer of that shape, and an output that is it."""
    dims = b"".join(field(1, size) for size in sizes)
    weights = field(7, field(5, dims + field(2, 1) + field(8, b"spare") + more))
    return weights + declared(12, *sizes)


def outside(path: bytes) -> bytes:
    """A model's fields: an initializer whose data lies in another file, and an output."""
    place = field(1, b"location") + field(2, path)
    return initializer(2, 2, more=field(13, place) + field(14, 1))


def node(operator: bytes, domain: bytes = b"") -> bytes:
    """A model's field: an operator on the account, whose output nothing uses."""
    parts = (field(1, b"account"), field(2, b"spare"), field(4, operator), field(7, domain))
    return field(7, field(1, b"".join(parts)))


def declared(number: int, *sizes: int) -> bytes:
    """A model's field: a float32 input (11) or output (12) of that shape."""
    shape = b"".join(field(1, field(1, size)) for size in sizes)
    tensor = field(1, field(1, 1) + field(2, shape))
    return field(7, field(number, field(1, b"spare") + field(2, tensor)))


GRAPHS: dict[str, Callable[[bytes], bytes]] = {
    "weights in /etc/passwd": lambda model: model + outside(b"/etc/passwd"),
    "weights in ../w.bin": lambda model: model + outside(b"../w.bin"),
    "weights in contract.json": lambda model: model + outside(b"contract.json"),
    "an operator of another domain": lambda model: (
        model + field(8, field(1, b"evil") + field(2, 1)) + node(b"Run", b"evil")
    ),
    "an operator that is none": lambda model: model + node(b"Launch"),
    "an initializer of terabytes": lambda model: model + initializer(2**20, 2**20),
    "an initializer of 2^63 by 2^63": lambda model: model + initializer(2**63, 2**63),
    "an input of terabytes": lambda model: model + declared(11, 2**40),
    "an output of terabytes": lambda model: model + declared(12, 2**40),
    "nothing": lambda model: b"",
    "text": lambda model: b"not a graph",
    "zeros": lambda model: bytes(len(model)),
    "half of it": lambda model: model[: len(model) // 2],
    "twice": lambda model: model + model,
    "a name that is no text": lambda model: model.replace(b"l_residual", b"\xff_residual"),
    "a renamed output": lambda model: model.replace(b"q_values", b"Q_values"),
    "a length of 2^60": lambda model: model + varint(7 << 3 | 2) + varint(2**60),
}
"""Graphs that are refused even where the contract promises their hash."""


# golden.npz


def members(content: bytes) -> dict[str, bytes]:
    """What a zip holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(*parts: tuple[str, bytes], packed: bool = False) -> bytes:
    """A zip of members, in order, of which two may have one name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in parts:
            entry = zipfile.ZipInfo(name)  # not written with a warning, as by name
            entry.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            file.NameToInfo.pop(entry.filename, None)  # which ends where a NUL stands
            file.writestr(entry, content)
    return buffer.getvalue()


def with_member(content: bytes, name: str, stored: bytes) -> bytes:
    """The zip with another member, or another content of one."""
    return zipped(*(members(content) | {name: stored}).items())


def header(text: str, data: bytes = b"") -> bytes:
    """A `.npy` of that header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + f"{text}\n".encode() + data


def claiming(shape: str, kind: str = "<f8", data: bytes = b"") -> bytes:
    """A `.npy` that says it has a shape and a kind of number."""
    return header(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}", data)


def pickled() -> bytes:
    """A `.npy` of Python objects."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}] * 32), allow_pickle=True)
    return buffer.getvalue()


def directory_says(content: bytes, offset: int, value: int) -> bytes:
    """The zip with a 32-bit field of its first directory entry changed."""
    place = content.index(b"PK\1\2") + offset
    return content[:place] + struct.pack("<I", value) + content[place + 4 :]


def overlapping(content: bytes) -> bytes:
    """The zip with every directory entry at the first member, which is large."""
    changed = bytearray(content)
    first = changed.index(b"PK\1\2")
    sizes, place = changed[first + 16 : first + 28], first
    while (place := changed.find(b"PK\1\2", place + 1)) > 0:
        changed[place + 16 : place + 28] = sizes
        changed[place + 42 : place + 46] = bytes(4)
    return bytes(changed)


ZIPS: dict[str, Callable[[bytes], bytes]] = {
    "zeros, compressed": lambda zip_: zipped(
        *(members(zip_) | {"bars.npy": claiming("(8388608,)", data=bytes(2**26))}).items(),
        packed=True,
    ),
    "compressed as it is": lambda zip_: zipped(*members(zip_).items(), packed=True),
    "members over each other": overlapping,
    "a size of 4 GB": lambda zip_: directory_says(zip_, 24, 2**32 - 2),
    "a place beyond the file": lambda zip_: directory_says(zip_, 42, 2**31),
    "a directory of a million members": lambda zip_: (
        zip_[:-22] + (b"PK\1\2" + bytes(42)) * 10**6 + zip_[-22:-10]
        + struct.pack("<IIH", 46 * 10**6, len(zip_) - 22, 0)
    ),
    "a directory of 64 bits": lambda zip_: (
        zip_[:-22] + b"PK\6\7" + struct.pack("<IQI", 0, len(zip_), 1) + zip_[-22:]
    ),
    "a comment": lambda zip_: zip_[:-2] + b"\4\0more",
    "an unknown member": lambda zip_: with_member(zip_, "more.npy", claiming("()", data=bytes(8))),
    "a member outside": lambda zip_: with_member(zip_, "../../x.npy", b""),
    "a member of no name": lambda zip_: with_member(zip_, "", b""),
    "a member twice": lambda zip_: zipped(
        *members(zip_).items(), ("bars.npy", members(zip_)["bars.npy"])
    ),
    "three thousand passes": lambda zip_: zipped(
        *((f"pass{number}/value.npy", b"") for number in range(3_000))
    ),
    "a shape of terabytes": lambda zip_: with_member(
        zip_, "bars.npy", claiming("(4, 5, 100000000000)")
    ),
    "a shape beyond integers": lambda zip_: with_member(
        zip_, "bars.npy", claiming(f"({'9' * 5_000},)")
    ),
    "a shape of nothing by terabytes": lambda zip_: with_member(
        zip_, "bars.npy", claiming("(0, 999999999999, 999999999999)")
    ),
    "a shape below zero": lambda zip_: with_member(zip_, "bars.npy", claiming("(-1,)")),
    "a header of brackets": lambda zip_: with_member(zip_, "bars.npy", header("(" * 9_000)),
    "a header of signs": lambda zip_: with_member(zip_, "bars.npy", header("-" * 9_000 + "1")),
    "a header that is a program": lambda zip_: with_member(
        zip_, "bars.npy", header("__import__('os').abort()")
    ),
    "Python objects": lambda zip_: with_member(zip_, "bars.npy", pickled()),
    "text instead of numbers": lambda zip_: with_member(
        zip_, "bars.npy", claiming("(4,)", "<U9", bytes(144))
    ),
    "infinities": lambda zip_: with_member(
        zip_,
        "pass0/value.npy",
        claiming("(32,)", "<f4", np.full(32, np.inf, np.float32).tobytes()),
    ),
    "nothing": lambda zip_: b"",
    "an empty zip": lambda zip_: zipped(),
}  # fmt: skip
"""Golden vectors that are refused even where the contract promises their hash."""


# contract.json

TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda text: b"",
    "null": lambda text: b"null\n",
    "binary": lambda text: bytes(range(256)) * 50,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "lists in lists": lambda text: b"[" * 1_000_000 + b"]" * 1_000_000,
    "objects in objects": lambda text: b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
    "a version of lists": lambda text: b'{"format_version": ' + b"[" * 600 + b"]" * 601,
    "an integer of a million digits": lambda text: (
        b'{"format_version": ' + b"9" * 1_000_000 + b"}\n"
    ),
    "a fraction of a million digits": lambda text: (
        b'{"format_version": 0.' + b"9" * 1_000_000 + b"}\n"
    ),
    "1e999": lambda text: text.replace(b'"max": 100000.0', b'"max": 1e999'),
    "NaN": lambda text: text.replace(b'"max": 100000.0', b'"max": NaN'),
    "half a character": lambda text: text.replace(b'"artifact-1"', rb'"\ud800"'),
    "a string without end": lambda text: b'"' + rb"\"" * 1_000_000,
    "a million lists": lambda text: b"[" + b"[]," * 1_000_000 + b"[]]\n",
    "twice": lambda text: text + text,
    "a key twice": lambda text: text.replace(b'{\n  "account"', b'{\n  "digest": "",\n  "account"'),
}
"""Contracts that no writer of ours makes."""


def _set(*path: str, to: Any) -> Edit:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path
        for name in parents:
            document = document[name]
        document[last] = to

    return change


WRONG: dict[str, Edit] = {
    "another format version": _set("format_version", to=99),
    "a format version of a megabyte": _set("format_version", to="9" * 1_000_000),
    "no moment": lambda d: d.pop("created"),
    "an unknown field": _set("more", to=1),
    "another feature": lambda d: d["features"]["names"].reverse(),
    "a window of 10^18": _set("features", "window", to=10**18),
    "a window of nothing": _set("features", "window", to=0),
    "a history of 10^18": _set("features", "history_bars", to=10**18),
    "10^18 segments": _set("max_segments", to=10**18),
    "10^18 cycles": _set("graph", "cycles", to=10**18),
    "states of 10^18": _set("graph", "h_dim", to=10**18),
    "exchanged actions": lambda d: d["actions"].update(BUY_LONG=1, SELL_SHORT=0),
    "an id of 10^30": _set("instruments", "unknown", "id", to=10**30),
    "a row of 10^30": lambda d: d["timeframes"].update(x={"id": 10**30, "seconds": 1}),
    "a row of 10^9": lambda d: d["timeframes"].update(x={"id": 10**9, "seconds": 1}),
    "a tolerance of 10^9": _set("tolerances", "value", to=1e9),
    "a tolerance of text": _set("tolerances", "value", to="0.1"),
    "a quantity of -10^308": _set("quantity", "max", to=-1e308),
    "10^30 windows beyond": lambda d: d["parity"][0]["outputs"]["value"].update(beyond=10**30),
    "no proof": _set("parity", to=[]),
    "a scale without integers": _set("graph", "input_scales", to={"x": 1.0}),
    "files that are none": _set("files", to=[]),
    "no premium": _set("instruments", "unknown", "premium_min", to=0.0),
    "a list for an object": _set("graph", to=[]),
}
"""Edits that are refused even where everything is hashed again."""

RIGHT: dict[str, Edit] = {
    "another name": _set("name", to="another"),
    "another moment": _set("created", to="2001-01-01T00:00:00+00:00"),
    "dearer trades": _set("trading", "cost_fraction", to=0.0123),
    "wider stops": _set("trading", "stop_atr", to=9.0),
    "unknown ones allowed or not": lambda d: d.update(
        allow_unknown_instrument=not d["allow_unknown_instrument"]
    ),
    "other settings": _set("provenance", "settings", to={"ours": True}),
    "another checkpoint": _set("provenance", "checkpoint_sha256", to="0" * 64),
    "trained until later": _set("provenance", "trained_until", to=10**10),
    "another tick": _set("instruments", "unknown", "tick_size", to=1e-9),
    "a proof without flips": lambda d: d["parity"][0].update(flips=[]) or d.update(name="x"),
    "a name of 1 MB": _set("name", to="x" * 1_000_000),
    "a name that draws": _set("name", to="\x1b[2J\u202e"),
}
"""Edits that make another artifact, as sound as the first; `sha256=` refuses it."""

PATHS = (
    "../model.onnx", "/etc/passwd", "./model.onnx", "model.onnx/../model.onnx", "..",
    "..\\model.onnx", "C:\\model.onnx", "//host/share/model.onnx", "file:///etc/passwd",
    "model.onnx\0", "", "~/model.onnx",
)  # fmt: skip
"""Names that a contract may not give its graph."""


def _rename(path: str) -> Edit:
    return lambda document: document["files"].update({path: document["files"].pop(MODEL)})


def _replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _link_beside(path: Path) -> None:
    """To the file's own content, elsewhere."""
    path.symlink_to(Path(__file__).parents[1] / "data/artifact-1" / path.name)


def _socket(path: Path) -> None:
    here, place = Path.cwd(), path.parent
    with socket.socket(socket.AF_UNIX) as end:
        os.chdir(place)  # a socket's path is short
        try:
            end.bind(path.name)
        finally:
            os.chdir(here)


def _sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(size)

    return make


def _swap(one: str, other: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        contents = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / other).write_bytes(contents[0])
        (folder / one).write_bytes(contents[1])

    return spoil


LINKS = {
    "to its own content": _link_beside,
    "to nowhere": _link("nowhere"),
    "to itself": _link("contract.json"),
    "to /dev/zero": _link("/dev/zero"),
    "to /etc/passwd": _link("/etc/passwd"),
    "to a folder": _link("."),
}
PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": lambda path: os.mkfifo(path),  # noqa: PLW0108, not every system has it
    "a socket": _socket,
    "a folder": Path.mkdir,
    "nothing": lambda path: None,
}
SIZES = {"640 MB": 640 * 2**20, "10 GB": 10 * 2**30, "1 TB": 2**40}


def damages(artifact: Path, count: int = 300, seed: int = 0) -> list[Damage]:
    """`count` of them, or all that are no random flips if that is more: the same for one seed."""
    rng = random.Random(seed)  # noqa: S311, no secret
    contents = {name: (artifact / name).read_bytes() for name in FILES}
    found = [*_of_files(contents), *_of_meaning(contents)]
    for number in range(count - len(found)):
        name = FILES[number % 3]
        bit = rng.randrange(8 * len(contents[name]))
        found.append(Damage("random bit", f"{name} {bit}", _flipped(name, contents[name], bit)))
    return found


def _flipped(name: str, content: bytes, bit: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(flip(content, bit))


def _of_files(contents: dict[str, bytes]) -> Iterator[Damage]:
    for name, content in contents.items():
        for share in (0, 1, 10, 25, 50, 75, 90, 99):
            cut = content[: len(content) * share // 100]
            yield Damage(
                "truncated",
                f"{name} to {share}%",
                lambda folder, name=name, cut=cut: (folder / name).write_bytes(cut),  # type: ignore[misc]
            )
        for byte in (0, 2, 8, 30, len(content) // 2, len(content) - 22, len(content) - 1):
            yield Damage("chosen bit", f"{name} {byte}", _flipped(name, content, 8 * byte))
        for label, link in LINKS.items():
            yield Damage("link", f"{name} {label}", _replace(name, link))
        for label, make in PLACES.items():
            yield Damage("not a file", f"{label} for {name}", _replace(name, make))
        for label, size in {**SIZES, "the most that is read": MOST_BYTES[name]}.items():
            yield Damage("absurd size", f"{name} of {label}", _replace(name, _sparse(size)))
    for one, other in ((CONTRACT, MODEL), (CONTRACT, GOLDEN), (MODEL, GOLDEN)):
        yield Damage("swapped", f"{one} and {other}", _swap(one, other))


def _of_meaning(contents: dict[str, bytes]) -> Iterator[Damage]:
    def spoil(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
        return lambda folder: put(folder, name, content(contents[name]))

    def write(text: Callable[[bytes], bytes]) -> Callable[[Path], object]:
        return lambda folder: (folder / CONTRACT).write_bytes(text(contents[CONTRACT]))

    def change(edited: Edit, how: Callable[[dict[str, Any]], bytes]) -> Callable[[Path], object]:
        return lambda folder: edit(folder, edited, how)

    for label, text in TEXTS.items():
        yield Damage("contract's text", label, write(text))
    for label, one in {**WRONG, **RIGHT}.items():
        yield Damage("edited", label, change(one, written))
    for label, one in WRONG.items():
        yield Damage("edited, hashed", label, change(one, sealed))
    for path in PATHS:
        yield Damage("path, hashed", path, change(_rename(path), sealed))
    for label, graph in GRAPHS.items():
        yield Damage("graph, hashed", label, spoil(MODEL, graph))
    for label, vectors in ZIPS.items():
        yield Damage("zip, hashed", label, spoil(GOLDEN, vectors))
    for label, one in RIGHT.items():
        yield Damage("sound, but pinned", label, change(one, sealed), pinned=True)
    for name in (MODEL, GOLDEN):
        for byte in range(100, len(contents[name]), len(contents[name]) // 6):
            bit = 8 * byte
            changed = flip(contents[name], bit)
            yield Damage(
                "bit, hashed, pinned",
                f"{name} {bit}",
                lambda folder, name=name, changed=changed: put(folder, name, changed),  # type: ignore[misc]
                pinned=True,
            )
