"""Copies of an artifact: `save`."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifact_copy import ArtifactCopy
from folders import content
from hostile import flip
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import ArtifactDamaged, ArtifactNotFound, BadInput, Model, load
from hrm_runtime.artifact.contract import CONTRACT, GOLDEN, MODEL
from hrm_runtime.artifact.folder import save

FILES = (CONTRACT, MODEL, GOLDEN)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_saved_artifact_is_the_one_that_was_loaded(
    artifact: Path, model: Model, tmp_path: Path, kind: Callable[[Path], Any]
) -> None:
    save(model, kind(tmp_path / "saved"))
    assert content(tmp_path / "saved") == {name: (artifact / name).read_bytes() for name in FILES}
    assert list(tmp_path.iterdir()) == [tmp_path / "saved"]
    loaded = load(tmp_path / "saved", sha256=model.id)
    assert loaded.folder == tmp_path / "saved"
    bars, on = random_bars(205, seed=31), {"instrument": "Alpha", "timeframe": "5"}
    assert loaded.decide(bars, ACCOUNTS["flat"], **on) == model.decide(bars, ACCOUNTS["flat"], **on)


def test_what_was_saved_may_be_read_by_whom_the_umask_allows(model: Model, tmp_path: Path) -> None:
    save(model, tmp_path / "saved")
    (tmp_path / "made").mkdir()
    expected = (tmp_path / "made").stat().st_mode
    assert (tmp_path / "saved").stat().st_mode == expected


def test_what_lies_beside_an_artifact_is_not_saved(
    copy_artifact: ArtifactCopy, tmp_path: Path
) -> None:
    (copy_artifact.path / "notes.txt").write_text("ours")
    save(load(copy_artifact.path), tmp_path / "saved")
    assert set(content(tmp_path / "saved")) == set(FILES)


def test_a_path_in_the_current_folder_may_be_saved_to(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(model, "saved")
    assert load("saved").id == model.id


@pytest.mark.parametrize(
    "make",
    [
        Path.touch,
        Path.mkdir,
        lambda path: shutil.copytree(Path(__file__).parents[0], path),
    ],
    ids=["file", "empty folder", "full folder"],
)
def test_what_is_there_is_not_overwritten(
    model: Model, tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    path = tmp_path / "saved"
    make(path)
    before = sorted(path.rglob("*"))
    with pytest.raises(BadInput, match=r"saved: expected a new folder, found something there$"):
        save(model, path)
    assert sorted(path.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_artifact_that_was_loaded_is_not_overwritten(copy_artifact: ArtifactCopy) -> None:
    model, before = load(copy_artifact.path), content(copy_artifact.path)
    with pytest.raises(BadInput, match=r"expected a new folder, found something there$"):
        save(model, copy_artifact.path)
    assert content(copy_artifact.path) == before


def test_a_dangling_link_is_not_overwritten(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    path.symlink_to("nowhere")
    with pytest.raises(BadInput, match=r"saved: expected a folder that can be written: .*saved'"):
        save(model, path)
    assert path.is_symlink()


def test_a_folder_to_save_in_must_exist(model: Model, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"saved: expected a folder that can be written: .*No such file"
    ):
        save(model, tmp_path / "gone" / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mkdir", "write_bytes", "rename"])
def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left_in_it(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def denied(path: Path, *arguments: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, name, denied)
        with pytest.raises(
            BadInput, match=r"saved: expected a folder that can be written: .*Permission denied"
        ):
            save(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_folder_cannot_be_saved(model: Model, tmp_path: Path) -> None:
    made = Model(model.contract, model.id, model._session)
    with pytest.raises(BadInput, match=r"^model: expected one loaded from a folder$"):
        save(made, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_cannot_be_saved(copy_artifact: ArtifactCopy, tmp_path: Path) -> None:
    model = load(copy_artifact.path)
    shutil.rmtree(copy_artifact.path)
    with pytest.raises(ArtifactNotFound, match="artifact: expected an artifact folder, found no"):
        save(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_another_artifact_in_the_folder_is_not_saved(
    copy_artifact: ArtifactCopy, tmp_path: Path
) -> None:
    model = load(copy_artifact.path)
    copy_artifact.reseal(name="another")
    found = hashlib.sha256((copy_artifact.path / CONTRACT).read_bytes()).hexdigest()
    with pytest.raises(
        ArtifactDamaged, match=f"artifact: expected the artifact {model.id}, found {found}$"
    ):
        save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", [MODEL, GOLDEN])
def test_a_file_that_was_changed_since_is_not_saved(
    copy_artifact: ArtifactCopy, tmp_path: Path, name: str
) -> None:
    model = load(copy_artifact.path)
    changed = flip((copy_artifact.path / name).read_bytes(), 800)
    (copy_artifact.path / name).write_bytes(changed)
    with pytest.raises(ArtifactDamaged, match=f"{name}: expected sha256 .*; the file was changed"):
        save(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
