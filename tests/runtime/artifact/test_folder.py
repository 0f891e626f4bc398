import hashlib
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifact_copy import ArtifactCopy
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    ArtifactDamaged,
    ArtifactNotFound,
    BadInput,
    Contract,
    DoNotStart,
    Model,
    UnsupportedFormat,
    load,
    load_contract,
)
from hrm_runtime.artifact.contract import CONTRACT, GOLDEN, MODEL
from hrm_runtime.artifact.folder import MOST_BYTES

FILES = (CONTRACT, MODEL, GOLDEN)

LOADERS = pytest.mark.parametrize("loader", [load, load_contract], ids=["load", "load_contract"])

Loader = Callable[[Path], object]


# what is loaded


def test_a_model_is_named_by_the_hash_of_its_contract(artifact: Path, model: Model) -> None:
    assert model.id == hashlib.sha256((artifact / CONTRACT).read_bytes()).hexdigest()


def test_the_contract_alone_is_that_of_the_model(artifact: Path, model: Model) -> None:
    assert load_contract(artifact) == model.contract


def test_the_contract_knows_the_id_that_load_takes(copy_artifact: ArtifactCopy) -> None:
    copy_artifact.reseal(name="étrange")
    contract = load_contract(copy_artifact.path)
    written = (copy_artifact.path / CONTRACT).read_bytes()
    assert contract.id == hashlib.sha256(written).hexdigest() != contract.digest
    assert load(copy_artifact.path, sha256=contract.id).id == contract.id


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_may_be_text(artifact: Path, model: Model, kind: Callable[[Path], Any]) -> None:
    assert load(kind(artifact)).id == load_contract(kind(artifact)).id == model.id


@pytest.mark.parametrize("write", [str.lower, str.upper], ids=["lower", "upper"])
def test_the_right_pin_is_accepted(
    artifact: Path, model: Model, write: Callable[[str], str]
) -> None:
    assert load(artifact, sha256=write(model.id)).id == model.id


def test_a_copy_elsewhere_decides_the_same(copy_artifact: ArtifactCopy, model: Model) -> None:
    bars, account = random_bars(205, seed=31), ACCOUNTS["flat"]
    names = {"instrument": "Alpha", "timeframe": "5"}
    found = load(copy_artifact.path).decide(bars, account, **names)
    assert found == model.decide(bars, account, **names)


def test_a_loaded_model_no_longer_needs_its_files(copy_artifact: ArtifactCopy) -> None:
    model = load(copy_artifact.path)
    given = {"instrument": "Beta", "timeframe": "15"}
    bars = random_bars(205, seconds=900)
    before = model.decide(bars, ACCOUNTS["flat"], **given)
    shutil.rmtree(copy_artifact.path)
    assert model.decide(bars, ACCOUNTS["flat"], **given) == before


# what is not there


@LOADERS
def test_a_missing_path_is_named(tmp_path: Path, loader: Loader) -> None:
    with pytest.raises(ArtifactNotFound, match=r"gone: expected an artifact folder, found no"):
        loader(tmp_path / "gone")


@LOADERS
def test_a_file_is_no_folder(artifact: Path, loader: Loader) -> None:
    with pytest.raises(ArtifactNotFound, match=r"model\.onnx: expected an artifact folder, found"):
        loader(artifact / MODEL)


@LOADERS
def test_an_empty_folder_is_no_artifact(tmp_path: Path, loader: Loader) -> None:
    with pytest.raises(
        ArtifactNotFound,
        match=r"expected an artifact \(contract\.json, model\.onnx, golden\.npz\): .*No such file",
    ):
        loader(tmp_path)


@LOADERS
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy_artifact: ArtifactCopy, name: str, loader: Loader) -> None:
    (copy_artifact.path / name).unlink()
    with pytest.raises(ArtifactNotFound, match=rf"expected an artifact .*No such file.*{name}"):
        loader(copy_artifact.path)


@LOADERS
@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_a_file_s_place_is_named(
    copy_artifact: ArtifactCopy, name: str, loader: Loader
) -> None:
    (copy_artifact.path / name).unlink()
    (copy_artifact.path / name).mkdir()
    with pytest.raises(
        ArtifactNotFound, match=rf"{name}: expected an artifact's file, found a folder; put"
    ):
        loader(copy_artifact.path)


@LOADERS
def test_a_path_that_may_not_be_looked_at_is_not_found(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, loader: Loader
) -> None:
    def denied(path: Path, *options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(ArtifactNotFound, match=r"expected an artifact .*Permission denied"):
        loader(artifact)


# what is read


@LOADERS
def test_a_link_to_the_folder_is_followed(artifact: Path, tmp_path: Path, loader: Loader) -> None:
    (tmp_path / "current").symlink_to(artifact, target_is_directory=True)
    found: Any = loader(tmp_path / "current")
    assert getattr(found, "contract", found) == load_contract(artifact)


def test_a_link_that_is_switched_while_loading_gives_one_artifact(
    artifact: Path, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, opened = tmp_path / "current", os.open
    current.symlink_to(artifact, target_is_directory=True)

    def switched(path: Path, *options: Any) -> int:
        current.unlink(missing_ok=True)
        return opened(path, *options)

    monkeypatch.setattr(os, "open", switched)
    assert load(current).id == model.id
    assert not current.exists()


@LOADERS
@pytest.mark.parametrize("name", FILES)
def test_a_link_in_a_file_s_place_is_not_followed(
    copy_artifact: ArtifactCopy, artifact: Path, name: str, loader: Loader
) -> None:
    (copy_artifact.path / name).unlink()
    (copy_artifact.path / name).symlink_to(artifact / name)
    with pytest.raises(
        ArtifactNotFound,
        match=rf"{name}: expected an artifact's file, found a symbolic link; put the file itself",
    ):
        loader(copy_artifact.path)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot refuse a link")
def test_a_link_put_there_meanwhile_is_not_followed(
    copy_artifact: ArtifactCopy, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy_artifact.path / MODEL).unlink()
    (copy_artifact.path / MODEL).symlink_to(artifact / MODEL)
    monkeypatch.setattr(os, "lstat", os.stat)
    with pytest.raises(ArtifactNotFound, match=r"expected an artifact .*symbolic links: .*model"):
        load(copy_artifact.path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
@pytest.mark.parametrize("seen_before", [True, False])
def test_a_pipe_in_a_file_s_place_is_not_waited_for(
    copy_artifact: ArtifactCopy, artifact: Path, monkeypatch: pytest.MonkeyPatch, seen_before: bool
) -> None:
    (copy_artifact.path / MODEL).unlink()
    os.mkfifo(copy_artifact.path / MODEL)
    if not seen_before:
        regular = os.stat(artifact / MODEL)
        monkeypatch.setattr(os, "lstat", lambda path, **_: regular)
        monkeypatch.setattr(os.path, "realpath", str)
    with pytest.raises(ArtifactNotFound, match=r"model\.onnx: expected .* found a pipe; put"):
        load(copy_artifact.path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no such device")
def test_a_device_is_not_read(copy_artifact: ArtifactCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat("/dev/zero")
    monkeypatch.setattr(os, "lstat", lambda path, **_: device)
    monkeypatch.setattr(os.path, "realpath", str)
    with pytest.raises(ArtifactNotFound, match=r"contract\.json: expected .* found a device; put"):
        load(copy_artifact.path)


@LOADERS
@pytest.mark.parametrize("name", FILES)
def test_a_file_larger_than_any_is_refused_unread(
    copy_artifact: ArtifactCopy, name: str, loader: Loader
) -> None:
    most = MOST_BYTES[name]
    os.truncate(copy_artifact.path / name, most + 1)  # sparse: it takes no room
    with pytest.raises(
        ArtifactDamaged, match=rf"{name}: expected at most {most} bytes, found {most + 1}; export"
    ):
        loader(copy_artifact.path)


def test_a_contract_as_large_as_may_be_is_read(copy_artifact: ArtifactCopy) -> None:
    os.truncate(copy_artifact.path / CONTRACT, MOST_BYTES[CONTRACT])
    with pytest.raises(ArtifactDamaged, match="expected canonical JSON, found something else"):
        load(copy_artifact.path)


@pytest.mark.parametrize(
    ("by", "found"), [(1, "more"), (5_000, "more"), (-1, "13191"), (-13_192, "0")]
)
def test_a_file_that_is_being_written_to_is_refused(
    copy_artifact: ArtifactCopy, monkeypatch: pytest.MonkeyPatch, by: int, found: str
) -> None:
    path, measured = copy_artifact.path / CONTRACT, os.fstat

    def then_changed(descriptor: int) -> os.stat_result:
        status = measured(descriptor)
        os.truncate(path, 13_192 + by)
        return status

    monkeypatch.setattr(os, "fstat", then_changed)
    with pytest.raises(
        ArtifactDamaged, match=rf"contract\.json: expected the 13192 bytes .* found {found}; it is"
    ):
        load(copy_artifact.path)


def test_every_file_is_closed_again(
    copy_artifact: ArtifactCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    open_ = os.open

    def noted(*arguments: Any) -> int:
        opened.append(open_(*arguments))
        return opened[-1]

    os.truncate(copy_artifact.path / GOLDEN, MOST_BYTES[GOLDEN] + 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", noted)
        with pytest.raises(ArtifactDamaged, match="expected at most"):
            load(copy_artifact.path)
    assert len(opened) == 3
    for descriptor in set(opened):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


# what git makes of it

ATTRIBUTES = Path(__file__).parents[3] / ".gitattributes"


@pytest.fixture
def cloned(artifact: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Commits an artifact with given attributes and clones it as Git for Windows does."""
    if shutil.which("git") is None:
        pytest.skip("needs git")

    def clone(attributes: str) -> Path:
        shutil.copytree(artifact, tmp_path / "own" / "artifact")
        (tmp_path / "own" / ".gitattributes").write_text(attributes)
        git(tmp_path / "own", "init", "--quiet")
        git(tmp_path / "own", "add", ".")
        git(tmp_path / "own", "commit", "--quiet", "--message", "An artifact")
        git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", "own", "cloned")
        return tmp_path / "cloned"

    return clone


def git(folder: Path, *arguments: str) -> None:
    """Run git without the settings of whoever tests."""
    who = {f"GIT_{role}_{what}": "hrm" for role in ("AUTHOR", "COMMITTER") for what in WHO}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment = {**os.environ, **who, **alone}
    subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True)  # noqa: S607


WHO = ("NAME", "EMAIL")


def test_a_clone_with_our_attributes_decides_as_the_artifact(
    cloned: Callable[[str], Path], model: Model
) -> None:
    found = load(cloned(ATTRIBUTES.read_text()) / "artifact")
    assert found.id == model.id
    bars, account = random_bars(205), ACCOUNTS["flat"]
    decided = [
        one.decide(bars, account, instrument="Alpha", timeframe="5") for one in (found, model)
    ]
    assert decided[0] == decided[1]


def test_a_clone_without_them_says_what_happened_and_is_mended_as_it_says(
    cloned: Callable[[str], Path], model: Model
) -> None:
    folder = cloned("")
    file = folder / "artifact" / CONTRACT
    assert b"\r\n" in file.read_bytes()
    with pytest.raises(
        ArtifactDamaged, match=r"found CRLF: git \(core\.autocrlf\).*converted"
    ) as told:
        load(folder / "artifact")
    (line,) = re.findall(r"add the line `(.*?)`", str(told.value))
    (folder / ".gitattributes").write_text(f"{line}\n")
    file.unlink()
    git(folder, "checkout", "--", f"artifact/{CONTRACT}")
    assert load(folder / "artifact").id == model.id


# what was changed


def test_another_artifact_than_the_pinned_one_is_refused(artifact: Path, model: Model) -> None:
    pin = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {pin}, found {model.id}"):
        load(artifact, sha256=pin)


@pytest.mark.parametrize("write", [str.lower, str.upper], ids=["lower", "upper"])
def test_a_digest_in_place_of_the_id_is_refused_and_the_id_is_told(
    artifact: Path, model: Model, write: Callable[[str], str]
) -> None:
    pin = write(model.contract.digest)
    with pytest.raises(
        ArtifactDamaged,
        match=f"expected an artifact's id as sha256, found {pin}, the digest inside this "
        f"artifact's contract; its id is {model.id}: give that",
    ):
        load(artifact, sha256=pin)


@pytest.mark.parametrize("pin", ["", "9f72", "\ud800", "0" * 64])
def test_what_is_neither_id_nor_digest_is_another_artifact(
    pin: str, artifact: Path, model: Model
) -> None:
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {pin}, found {model.id}$"):
        load(artifact, sha256=pin)


def test_a_digest_that_only_stands_in_a_contract_is_not_told_of(
    copy_artifact: ArtifactCopy,
) -> None:
    contract = copy_artifact.path / CONTRACT
    written = contract.read_bytes()
    claimed = "0" * 64
    digest = load_contract(copy_artifact.path).digest
    contract.write_bytes(written.replace(digest.encode(), claimed.encode()))
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {claimed}, found"):
        load(copy_artifact.path, sha256=claimed)


def test_a_pin_holds_against_a_deliberate_new_seal(
    copy_artifact: ArtifactCopy, model: Model
) -> None:
    copy_artifact.reseal(name="another")
    assert load(copy_artifact.path).contract.name == "another"
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {model.id}, found"):
        load(copy_artifact.path, sha256=model.id)


def test_converted_line_ends_are_named_and_refused_with_a_pin_too(
    copy_artifact: ArtifactCopy, model: Model
) -> None:
    convert(copy_artifact.path / CONTRACT)
    for pin in (None, model.id, model.id.upper()):
        with pytest.raises(
            ArtifactDamaged, match=r"^contract\.json: expected lines that end in LF"
        ):
            load(copy_artifact.path, sha256=pin)
    with pytest.raises(ArtifactDamaged, match=r"^contract\.json: expected lines that end in LF"):
        load_contract(copy_artifact.path)
    other = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {other}, found"):
        load(copy_artifact.path, sha256=other)


def convert(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF], ids=hex)
@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_in_any_file_is_refused(
    copy_artifact: ArtifactCopy, name: str, mask: int
) -> None:
    path = copy_artifact.path / name
    content = path.read_bytes()
    accepted = []
    for offset in {*(len(content) * part // 12 for part in range(12)), len(content) - 1}:
        path.write_bytes(flipped(content, offset, mask))
        try:
            load_contract(copy_artifact.path)
        except DoNotStart:
            continue
        accepted.append(offset)
    assert accepted == []


def flipped(content: bytes, offset: int, mask: int) -> bytes:
    changed = bytearray(content)
    changed[offset] ^= mask
    return bytes(changed)


@LOADERS
@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_changed_file_is_named_with_both_hashes(
    copy_artifact: ArtifactCopy, contract: Contract, name: str, loader: Loader
) -> None:
    changed = flipped((copy_artifact.path / name).read_bytes(), 100, 0x01)
    (copy_artifact.path / name).write_bytes(changed)
    found = hashlib.sha256(changed).hexdigest()
    with pytest.raises(
        ArtifactDamaged, match=rf"{name}: expected sha256 {contract.files[name]}, found {found}"
    ):
        loader(copy_artifact.path)


@pytest.mark.parametrize("change", [lambda c: c + b"\0", lambda c: c[:-1], lambda c: b""])
@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_longer_shorter_or_empty_file_is_refused(
    copy_artifact: ArtifactCopy, name: str, change: Callable[[bytes], bytes]
) -> None:
    path = copy_artifact.path / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ArtifactDamaged, match=f"{name}: expected sha256 .*; the file was changed"):
        load(copy_artifact.path)


@LOADERS
def test_another_format_version_is_refused_naming_both(
    copy_artifact: ArtifactCopy, loader: Loader
) -> None:
    copy_artifact.reseal(format_version=2)
    with pytest.raises(UnsupportedFormat, match="reads format version 1, found 2"):
        loader(copy_artifact.path)


def test_a_pin_is_text(artifact: Path) -> None:
    with pytest.raises(BadInput, match="sha256: expected text, found 5"):
        load(artifact, sha256=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -3, 10**10, "1", 1.5, True])
def test_a_model_needs_a_count_of_threads(artifact: Path, threads: int) -> None:
    with pytest.raises(BadInput, match=f"threads: expected 1 to 1024, found {threads!r}"):
        load(artifact, threads=threads)


# another process


def test_a_model_is_pickled_as_where_it_lies_and_its_id(copy_artifact: ArtifactCopy) -> None:
    model = load(copy_artifact.path, threads=2)
    written = pickle.dumps(model)
    assert len(written) < 500
    other = pickle.loads(written)  # noqa: S301, our own
    assert (other.id, other.folder, other.threads) == (model.id, copy_artifact.path, 2)
    bars, on = random_bars(205, seed=31), {"instrument": "Alpha", "timeframe": "5"}
    assert other.decide(bars, ACCOUNTS["flat"], **on) == model.decide(bars, ACCOUNTS["flat"], **on)
    copy_artifact.reseal(name="another")
    with pytest.raises(ArtifactDamaged, match=f"expected the artifact {model.id}, found "):
        pickle.loads(written)  # noqa: S301, our own


def test_a_model_of_no_folder_cannot_be_pickled(model: Model) -> None:
    made = Model(model.contract, model.id, model._session)
    with pytest.raises(
        pickle.PicklingError, match="expected a model that was loaded from a folder"
    ):
        pickle.dumps(made)
