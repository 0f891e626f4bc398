"""Whatever lies in an artifact's place, loading it raises an error of its own, and soon."""

import hashlib
import importlib.util
import io
import json
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from hostile import (
    GRAPHS,
    PATHS,
    RIGHT,
    WRONG,
    ZIPS,
    Damage,
    claiming,
    damages,
    directory_says,
    edit,
    header,
    members,
    sealed,
    with_member,
    zipped,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrm_runtime import (
    ArtifactDamaged,
    ArtifactNotFound,
    ContractInvalid,
    DoNotStart,
    SelfTestFailed,
    UnsupportedFormat,
    load,
    load_contract,
)
from hrm_runtime.artifact.contract import CONTRACT, GOLDEN, Contract, read_contract
from hrm_runtime.artifact.golden import MOST_DIRECTORY, Golden

ROOT = Path(__file__).parents[2]
ARTIFACT = ROOT / "tests/data/artifact-1"
TEXT = (ARTIFACT / CONTRACT).read_bytes()
VECTORS = (ARTIFACT / GOLDEN).read_bytes()
MEMBERS = members(VECTORS)

TYPED = {
    ArtifactNotFound,
    ArtifactDamaged,
    UnsupportedFormat,
    ContractInvalid,
    SelfTestFailed,
}

linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="makes pipes, devices and sparse files"
)


def one_of_each_kind(most: int) -> list[Damage]:
    """The first `most` of every kind; those made of many megabytes are the benchmark's."""
    taken: dict[str, list[Damage]] = {}
    for damage in damages(ARTIFACT):
        if damage.name.startswith("zeros, compressed"):
            continue
        if len(taken.setdefault(damage.kind, [])) < most:
            taken[damage.kind].append(damage)
    return [damage for kind in taken.values() for damage in kind]


@linux_only
@pytest.mark.parametrize(
    "damage", one_of_each_kind(4), ids=lambda damage: f"{damage.kind}: {damage.name!r}"
)
def test_a_damaged_artifact_is_refused_with_an_error_of_its_own(
    copy_artifact: ArtifactCopy, damage: Damage
) -> None:
    pin = hashlib.sha256(TEXT).hexdigest() if damage.pinned else None
    damage.make(copy_artifact.path)
    with pytest.raises(
        DoNotStart, match=r"expected|this library reads|onnxruntime refuses"
    ) as raised:
        load(copy_artifact.path, sha256=pin)
    assert raised.type in TYPED


# what was hashed again


@pytest.mark.parametrize("name", RIGHT)
def test_a_sound_edit_is_another_artifact_which_only_the_pin_refuses(
    copy_artifact: ArtifactCopy, name: str
) -> None:
    pin = hashlib.sha256(TEXT).hexdigest()
    edit(copy_artifact.path, RIGHT[name])
    found = hashlib.sha256((copy_artifact.path / CONTRACT).read_bytes()).hexdigest()
    assert load(copy_artifact.path).id == load(copy_artifact.path, sha256=found).id == found
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {pin}, found {found}$"):
        load(copy_artifact.path, sha256=pin)


@pytest.mark.parametrize("name", WRONG)
def test_an_edit_that_makes_no_sense_is_refused_however_it_is_hashed(
    copy_artifact: ArtifactCopy, name: str
) -> None:
    edit(copy_artifact.path, WRONG[name])
    with pytest.raises(
        (ContractInvalid, UnsupportedFormat, SelfTestFailed),
        match=r"^(contract\.json|model\.onnx|golden\.npz): .*(expect|this library|unknown)",
    ):
        load(copy_artifact.path)


@pytest.mark.parametrize("path", PATHS)
def test_a_contract_names_no_other_files(copy_artifact: ArtifactCopy, path: str) -> None:
    document = json.loads(TEXT)
    document["files"][path] = document["files"].pop("model.onnx")
    (copy_artifact.path / CONTRACT).write_bytes(sealed(document))
    with pytest.raises(ContractInvalid, match=r"files: expected model\.onnx and golden\.npz$"):
        load_contract(copy_artifact.path)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_hostile_graph_is_refused(copy_artifact: ArtifactCopy, name: str) -> None:
    path = copy_artifact.path / "model.onnx"
    copy_artifact.put("model.onnx", GRAPHS[name](path.read_bytes()))
    with pytest.raises(ContractInvalid, match=r"^model\.onnx: .*(refuses it|expect)"):
        load(copy_artifact.path)


@pytest.mark.parametrize("name", [name for name in GRAPHS if name.startswith("weights in")])
def test_weights_outside_the_graph_s_file_are_never_looked_for(
    copy_artifact: ArtifactCopy, name: str
) -> None:
    path = copy_artifact.path / "model.onnx"
    copy_artifact.put("model.onnx", GRAPHS[name](path.read_bytes()))
    with pytest.raises(ContractInvalid, match=r"^model\.onnx: onnxruntime refuses it: .*xternal"):
        load(copy_artifact.path)


OPENED = """
import json, sys
sys.modules.update(polars=None, pandas=None)  # as in production; TA-Lib takes what it finds
from hrm_runtime import load
load(sys.argv[1])  # what is imported once
events, HARMLESS = [], ("ctypes", "object", "builtins.id")
sys.addaudithook(lambda name, given: events.append((name, [str(one) for one in given])))
load(sys.argv[1])
print(json.dumps([event for event in events if not event[0].startswith(HARMLESS)]))
"""


def test_loading_opens_three_files_to_read_and_does_nothing_else(artifact: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPENED, str(artifact)], capture_output=True, text=True, check=True
    )
    events = json.loads(done.stdout)
    paths = [str(artifact / name) for name in (CONTRACT, "model.onnx", GOLDEN)]
    assert [given[0] for name, given in events if not given[0].isdigit()] == paths
    assert {(name, given[1]) for name, given in events} == {("open", "None"), ("open", "r")}


# memory


def peak(content: bytes) -> int:
    """The most bytes that reading golden vectors takes, beside what it is given."""
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactDamaged, match=r"^golden\.npz: expected"):
            Golden.from_bytes(content)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in ZIPS if name not in ("infinities",)])
def test_hostile_vectors_take_no_more_memory_than_sound_ones(name: str) -> None:
    content = ZIPS[name](VECTORS)
    assert peak(content) < 3 * len(VECTORS) + 32 * MOST_DIRECTORY


def test_vectors_that_are_not_finite_do_not_replay(copy_artifact: ArtifactCopy) -> None:
    copy_artifact.put(GOLDEN, ZIPS["infinities"](VECTORS))
    with pytest.raises(SelfTestFailed, match=r"segment 0, value\[0\]: expected inf within 0\.001"):
        load(copy_artifact.path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda: VECTORS[:-1], "a zip with its directory at the end, found none; cut off"),
        (ZIPS["a comment"], "a zip with its directory at the end"),
        (ZIPS["a directory of 64 bits"], "a zip with its directory at the end"),
        (ZIPS["a directory of a million members"], "at most 262144 bytes, found 46000000"),
        (ZIPS["a member twice"], r"missing none; unknown or repeated 'bars\.npy'"),
        (ZIPS["three thousand passes"], "missing .* and [0-9]+ more; unknown or repeated none"),
        (ZIPS["compressed as it is"], r"expected arrays as they are, found features\.npy compr"),
        (ZIPS["a size of 4 GB"], r"within the file's \d+ bytes, found 429\d+ claimed"),
        (ZIPS["members over each other"], r"within the file's \d+ bytes, found \d+ claimed"),
        (ZIPS["a shape of terabytes"], r"bars\.npy: expected 16000000000000 bytes for its shape"),
        (ZIPS["a shape of nothing by terabytes"], "too big|array is too"),
        (ZIPS["a shape beyond integers"], r"bars\.npy: expected a header that numpy writes"),
        (ZIPS["a shape below zero"], r"bars\.npy: expected a header that numpy writes"),
        (ZIPS["a header that is a program"], r"bars\.npy: expected a header that numpy writes"),
        (ZIPS["Python objects"], r"bars\.npy: expected a header that numpy writes, of plain"),
        (lambda zip_: directory_says(zip_, 8, 1), "File 'features.npy' is encrypted|encrypted"),
        (lambda zip_: directory_says(zip_, 16, 0), "Bad CRC-32|differ"),
    ],
)
def test_vectors_that_cannot_be_read_say_what_was_expected(damage: Any, message: str) -> None:
    content = damage(VECTORS) if damage.__code__.co_argcount else damage()
    with pytest.raises(ArtifactDamaged, match=rf"^golden\.npz: expected golden .*({message})"):
        Golden.from_bytes(content)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_in_the_order_they_were_written(order: Any) -> None:
    bars = np.asarray(Golden.from_bytes(VECTORS).bars, order=order)
    buffer = io.BytesIO()
    np.save(buffer, bars)
    found = Golden.from_bytes(with_member(VECTORS, "bars.npy", buffer.getvalue()))
    np.testing.assert_array_equal(found.bars, bars, strict=True)
    assert found.bars.flags.writeable


# whatever there is

SOUND = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""The same examples in every run; how long one takes is nobody's business."""

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64, 10**30, 10**31, 1e308, 5e-324, -0.0]),
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*json.loads(TEXT), "id", "\ud800"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def outcome(text: bytes) -> object:
    """What reading a contract comes to: the contract, or the kind of error."""
    try:
        return read_contract(text)
    except DoNotStart as error:
        return type(error)


@given(DOCUMENTS, st.booleans())
@settings(SOUND, max_examples=150)
def test_of_150_documents_each_is_refused(document: Any, versioned: bool) -> None:
    if versioned and isinstance(document, dict):
        document = {**document, "format_version": 1}
    text = f"{json.dumps(document, sort_keys=True, indent=2)}\n".encode()
    assert outcome(text) in {ArtifactDamaged, UnsupportedFormat, ContractInvalid}


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a document."""
    items = (
        document.items() if isinstance(document, dict)
        else enumerate(document) if isinstance(document, list) else ()
    )  # fmt: skip
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


PLACES = [place for place in places(json.loads(TEXT)) if place]


@given(st.sampled_from(PLACES), LEAVES | DOCUMENTS, st.booleans(), st.booleans())
@settings(SOUND, max_examples=150)
def test_of_150_edits_each_is_refused_or_read_as_it_was_written(
    place: tuple[Any, ...], value: Any, remove: bool, seal: bool
) -> None:
    document = json.loads(TEXT)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    if remove:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    try:
        text = sealed(document) if seal else f"{json.dumps(document)}\n".encode()
    except UnicodeEncodeError:  # half a character, which only an escape can write
        text = f"{json.dumps(document, indent=2, sort_keys=True)}\n".encode()
    found = outcome(text)
    if isinstance(found, Contract):
        assert json.loads(text) == json.loads(sealed(json.loads(text)))
        assert seal or text == TEXT
    else:
        assert found in {ArtifactDamaged, UnsupportedFormat, ContractInvalid}


@given(st.binary(max_size=300), st.booleans())
@settings(SOUND, max_examples=300)
def test_of_300_texts_of_arbitrary_bytes_each_is_refused(content: bytes, appended: bool) -> None:
    text = TEXT + content + b"x" if appended else content
    assert outcome(text) is ArtifactDamaged or outcome(text) is UnsupportedFormat


def refused(content: bytes) -> bool:
    try:
        Golden.from_bytes(content)
    except ArtifactDamaged:
        return True
    return False


@given(st.binary(max_size=400), st.booleans(), st.integers(0, 60))
@settings(SOUND, max_examples=400)
def test_of_400_files_of_arbitrary_bytes_none_holds_vectors(
    content: bytes, ended: bool, directory: int
) -> None:
    place = max(0, len(content) - directory)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, directory, place, 0)
    assert refused(content + (end if ended else b""))


@given(st.integers(0, len(VECTORS) - 1), st.binary(min_size=1, max_size=8))
@settings(SOUND, max_examples=300)
def test_300_overwritten_places_are_refused_or_change_no_structure(
    place: int, content: bytes
) -> None:
    changed = VECTORS[:place] + content + VECTORS[place + len(content) :]
    if not refused(changed):
        found, expected = Golden.from_bytes(changed), Golden.from_bytes(VECTORS)
        assert found.to_bytes() == expected.to_bytes()


SHAPES = st.lists(st.integers(0, 2**40), max_size=4).map(
    lambda s: f"({''.join(f'{n},' for n in s)})"
)
STORED = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=60).map(header),
    st.builds(claiming, SHAPES, st.sampled_from(["<f4", "<f8", "<i8", "|O", ">f8"]), st.binary()),
    st.sampled_from(list(MEMBERS.values())),
)
ENTRIES = st.tuples(
    st.sampled_from([*MEMBERS, "more.npy", "pass7/value.npy"]) | st.text(max_size=9), STORED
)


@given(st.lists(ENTRIES, min_size=1, max_size=3), st.booleans(), st.booleans())
@settings(SOUND, max_examples=400)
def test_of_400_zips_of_arbitrary_members_none_holds_other_vectors(
    entries: list[tuple[str, bytes]], sound: bool, packed: bool
) -> None:
    parts = (MEMBERS | dict(entries)).items() if sound else entries
    content = zipped(*parts, packed=packed)
    if not refused(content):
        found = Golden.from_bytes(content)
        stored = members(found.to_bytes())
        assert {name: stored[name][-8:] for name in MEMBERS} == {
            name: one[-8:] for name, one in members(content).items()
        }


# the benchmark


@pytest.fixture
def benchmark() -> ModuleType:
    """benchmarks/damaged.py, imported as a module."""
    spec = importlib.util.spec_from_file_location("damaged", ROOT / "benchmarks/damaged.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_refuses_what_it_makes_and_says_so(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (swapped, *_) = (damage for damage in damages(ARTIFACT) if damage.kind == "swapped")
    monkeypatch.setattr(benchmark, "damages", lambda artifact, count, seed: [swapped])
    monkeypatch.setattr(sys, "argv", ["damaged.py", str(ARTIFACT), "--kinds", "swapped"])
    benchmark.main()
    said = capsys.readouterr().out
    assert said.startswith("undamaged: accepted in ")
    assert "\nswapped                     1" in said
    assert said.endswith("\n1 of 1 were refused with an error of their own\n")


def test_the_benchmark_names_what_was_accepted(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    answer = {"outcome": "accepted", "said": "", "seconds": 0.5, "mb": 1.0}
    monkeypatch.setattr(benchmark, "tried", lambda damage, artifact, pin: answer)
    monkeypatch.setattr(sys, "argv", ["damaged.py", str(ARTIFACT), "--kinds", "swapped"])
    with pytest.raises(SystemExit, match=r"^swapped, contract\.json and model\.onnx: accepted: \n"):
        benchmark.main()
    assert capsys.readouterr().out.endswith("\n0 of 3 were refused with an error of their own\n")
