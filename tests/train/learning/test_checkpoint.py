"""Checkpoint folders: written whole, read back bit for bit, refused once changed."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch import Batch
from exactly import assert_equal
from safetensors.torch import load_file, save_file

from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES
from hrm_train import HierarchicalReasoningModel, load_checkpoint, load_model
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split
from hrm_train.errors import CheckpointInvalid
from hrm_train.learning.checkpoint import (
    FORMAT_VERSION,
    CheckpointWriter,
    Description,
    Epoch,
    best_file,
)
from hrm_train.learning.plan import held_out
from hrm_train.settings import Settings, load_settings, render

BEST = "best-*.safetensors"
HASHED = (BEST, "settings.yaml", "windows.safetensors")
MANIFEST = "checkpoint.json"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and seal it again, as someone would who means it."""
    document = json.loads((folder / MANIFEST).read_text())
    change(document)
    unsigned = canonical_text({**document, "digest": ""})
    digest = hashlib.sha256(unsigned.encode()).hexdigest()
    (folder / MANIFEST).write_text(canonical_text({**document, "digest": digest}))


def canonical_text(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def sign_again(folder: Path, name: str) -> None:
    """Put the hash of a changed file into the manifest."""
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    edit(folder, lambda document: document["files"].update({name: digest}))


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def described(prepared: Prepared, split: Split, losses: list[float]) -> Description:
    """Epochs of the given validation losses."""
    epochs = tuple(
        Epoch(
            number=number, train_loss=2 * loss, validation_loss=loss, accuracy=0.5, regret=0.1,
            segments=1.25,
        )
        for number, loss in enumerate(losses, start=1)
    )  # fmt: skip
    return Description(
        format_version=FORMAT_VERSION,
        digest="",
        feature_version=FEATURE_VERSION,
        features=FEATURES,
        account=ACCOUNT,
        vocabulary=prepared.manifest.vocabulary,
        series=prepared.manifest.series,
        train_samples=70,
        validation_samples=20,
        boundary=split.boundary,
        judged_from=split.boundary + 300,
        judged_until=None,
        initialized_from="5" * 64,
        quantised=False,
        best_epoch=1 + losses.index(min(losses)),
        epochs=epochs,
        files={},
    )


# what is written is what is read


@pytest.fixture
def writer(
    settings: Settings, prepared: Prepared, split: Split, tmp_path: Path
) -> CheckpointWriter:
    """Of a folder that was begun."""
    writer = CheckpointWriter(tmp_path / "new" / "written")
    writer.begin(settings, held_out(settings, prepared, split))
    return writer


def test_a_loaded_checkpoint_equals_the_saved_one_bit_for_bit(
    writer: CheckpointWriter,
    model: HierarchicalReasoningModel,
    settings: Settings,
    prepared: Prepared,
    split: Split,
    batch: Batch,
) -> None:
    description = described(prepared, split, [2.0, 1.0])
    writer.describe(description, model)
    checkpoint = load_checkpoint(writer.folder)
    assert not checkpoint.model.training
    assert checkpoint.settings == checkpoint.model.settings == settings
    assert_equal(dict(checkpoint.model.state_dict()), dict(model.state_dict()))
    assert_equal(checkpoint.model(*batch.inputs), model(*batch.inputs))
    for name, array in vars(held_out(settings, prepared, split)).items():
        np.testing.assert_array_equal(getattr(checkpoint.windows, name), array, strict=True)
    found = checkpoint.description
    files = ["settings.yaml", "windows.safetensors", "best-2.safetensors"]
    assert found == replace(
        description,
        digest=found.digest,
        files={
            name: hashlib.sha256((writer.folder / name).read_bytes()).hexdigest() for name in files
        },
    )
    assert checkpoint.sha256 == hashlib.sha256((writer.folder / MANIFEST).read_bytes()).hexdigest()
    assert sorted(path.name for path in writer.folder.iterdir()) == sorted([*files, MANIFEST])
    size = f"{model.cycles} x {model.timesteps}"
    shown = f"Checkpoint({size}, epoch 2 of 2, sha256 {checkpoint.sha256[:12]}...)"
    assert repr(checkpoint) == shown


def test_the_best_weights_stay_while_they_are_the_best_and_then_give_way(
    writer: CheckpointWriter, model: HierarchicalReasoningModel, prepared: Prepared, split: Split
) -> None:
    losses, best = [], []
    for number, loss in enumerate([3.0, 4.0, 2.0, 2.0], start=1):
        losses.append(loss)
        model.value_head.value.bias.data.fill_(number)
        is_best = loss == min(losses) and losses.count(loss) == 1
        kept = {path.name for path in writer.folder.glob("best-*")}
        writer.describe(described(prepared, split, losses), model if is_best else None)
        checkpoint = load_checkpoint(writer.folder)
        assert kept <= {path.name for path in writer.folder.glob("best-*")}  # not gone before
        writer.keep_only(checkpoint.description.best_epoch)
        best.append(checkpoint.model.value_head.value.bias.item())
        assert len(checkpoint.description.epochs) == number
        assert only(writer.folder, BEST).name == best_file(checkpoint.description.best_epoch)
    assert best == [1.0, 1.0, 3.0, 3.0]


def test_the_settings_are_written_for_reading(trained: Path) -> None:
    settings = load_checkpoint(trained).settings
    assert (trained / "settings.yaml").read_text() == render(settings)
    assert load_settings(trained / "settings.yaml") == settings


def test_load_model_takes_a_folder_or_a_file(trained: Path) -> None:
    best = load_checkpoint(trained).model
    assert_equal(dict(load_model(trained).state_dict()), dict(best.state_dict()))
    from_file = load_model(only(trained, BEST))
    assert_equal(dict(from_file.state_dict()), dict(best.state_dict()))
    assert from_file.settings == best.settings


# what is refused


@pytest.mark.parametrize("name", [MANIFEST, "settings.yaml"])
def test_converted_line_ends_are_refused_and_it_is_said_how_to_mend_them(
    name: str, checkpoint: Path
) -> None:
    file = checkpoint / name
    written = file.read_bytes()
    assert b"\r" not in written
    file.write_bytes(written.replace(b"\n", b"\r\n"))
    with pytest.raises(
        CheckpointInvalid,
        match=rf"^{re.escape(str(checkpoint))}: {name}: expected lines that end in LF, .*found CRLF"
        rf".*add the line `{name} -text` to \.gitattributes",
    ):
        load_checkpoint(checkpoint)
    file.write_bytes(written)
    load_checkpoint(checkpoint)


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", HASHED)
def test_a_changed_byte_is_refused(name: str, where: float, checkpoint: Path) -> None:
    file = only(checkpoint, name)
    content = bytearray(file.read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[int(where * (len(content) - 1))] ^= 1
    file.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        CheckpointInvalid, match=f"{file.name}: expected sha256 {expected}, found {found}"
    ):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("mask", [1, 0x80])
def test_any_changed_byte_of_the_manifest_is_refused(mask: int, checkpoint: Path) -> None:
    content = (checkpoint / MANIFEST).read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= mask
        (checkpoint / MANIFEST).write_bytes(changed)
        with pytest.raises(CheckpointInvalid, match=r"checkpoint\.json: "):
            load_checkpoint(checkpoint)


@pytest.mark.parametrize("name", HASHED)
def test_a_missing_file_is_refused_by_name(name: str, checkpoint: Path) -> None:
    file = only(checkpoint, name)
    file.unlink()
    with pytest.raises(CheckpointInvalid, match=f"{file.name}: expected a file of the checkpoint"):
        load_checkpoint(checkpoint)


def test_where_training_stands_is_needed_for_nothing_else(trained: Path, checkpoint: Path) -> None:
    (checkpoint / "last.safetensors").unlink()
    assert load_checkpoint(checkpoint).sha256 == load_checkpoint(trained).sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["files"].update({"settings.yaml": "0" * 64}),
            "settings.yaml: expected sha256 0000",
        ),
        (
            lambda d: d.update(format_version=2),
            "expected format version 1, found 2; train again",
        ),
        (lambda d: d.update(feature_version=2), r"others \(version 2\); train again"),
        (lambda d: d["features"].reverse(), "expected this library's features and account"),
        (lambda d: d["account"].pop(), "expected this library's features and account"),
        (
            lambda d: d["files"].pop("settings.yaml"),
            r"files: expected .*'settings.yaml', .* found \['best-\d.safetensors', 'windows.safet",
        ),
        (
            lambda d: d.update(best_epoch=9),
            r"files: expected \['best-9.safetensors', .* found \['best-\d.safetensors'",
        ),
        (lambda d: d.update(extra=1), "checkpoint.json: extra: unknown"),
        (lambda d: d.pop("boundary"), "checkpoint.json: boundary: expected, but missing"),
        (
            lambda d: d.update(quantised=True),
            r"best-\d.safetensors: expected quantised True, as checkpoint.json says, found False",
        ),
        (lambda d: d.update(best_epoch="1"), "checkpoint.json: best_epoch: expected an integer"),
        (
            lambda d: d["vocabulary"]["instruments"]["Nifty"].update(type="bond"),
            "vocabulary.instruments.Nifty.type: expected 'index' or 'stock', found 'bond'",
        ),
    ],
)
def test_a_manifest_of_another_meaning_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, checkpoint: Path
) -> None:
    edit(checkpoint, change)
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_a_manifest_that_is_not_one_is_refused(content: bytes, checkpoint: Path) -> None:
    (checkpoint / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"checkpoint\.json: "):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("load", [load_checkpoint, load_model])
def test_a_folder_without_a_manifest_is_not_a_checkpoint(
    load: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(
        CheckpointInvalid, match=r"expected a checkpoint folder: .*checkpoint\.json"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (load_checkpoint, "absent: expected a checkpoint folder"),
        (load_model, "absent: expected weights of this model"),
    ],
)
def test_an_absent_path_is_refused_by_name(
    load: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointInvalid, match=message):
        load(tmp_path / "absent")


def test_settings_that_are_not_those_of_the_weights_are_refused(
    checkpoint: Path, make_settings: Callable[..., Settings]
) -> None:
    (checkpoint / "settings.yaml").write_text(render(make_settings({"training.epochs": 9})))
    sign_again(checkpoint, "settings.yaml")
    message = r"settings.yaml differs from the settings inside best-\d.safetensors"
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(checkpoint)


def test_weights_of_other_dimensions_are_refused_with_the_tensor(
    checkpoint: Path, make_settings: Callable[..., Settings]
) -> None:
    path = only(checkpoint, BEST)
    wider = make_settings({"network.h_module.ffn_dim": 32}).model_dump_json()
    save_file(load_file(path), path, {"settings": wider})
    sign_again(checkpoint, path.name)
    message = (
        "2 tensors differ from what the settings say; h_module.blocks.0.mlp.gate_up.weight: "
        "expected ([64, 16], torch.float32), found ([48, 16], torch.float32)"
    )
    with pytest.raises(CheckpointInvalid, match=re.escape(message)):
        load_checkpoint(checkpoint)


def test_windows_that_are_none_are_refused(checkpoint: Path) -> None:
    save_file({"stamps": torch.zeros(3)}, checkpoint / "windows.safetensors")
    sign_again(checkpoint, "windows.safetensors")
    with pytest.raises(CheckpointInvalid, match=r"windows\.safetensors: expected held-out windows"):
        load_checkpoint(checkpoint)


# the writer


OURS = [
    "checkpoint.json", "settings.yaml", "windows.safetensors", "last.safetensors",
    "best-1.safetensors", "best-120.safetensors", ".last.safetensors.partial",
    ".best-7.safetensors.partial", ".checkpoint.json.partial",
]  # fmt: skip


@pytest.mark.parametrize("resume", [False, True])
def test_a_writer_takes_a_new_or_an_empty_folder(resume: bool, tmp_path: Path) -> None:
    assert CheckpointWriter(tmp_path, resume).folder == tmp_path
    assert CheckpointWriter(tmp_path / "new" / "folder", resume).folder.parent == tmp_path / "new"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OURS)
def test_what_a_training_wrote_is_taken_to_be_resumed_and_not_otherwise(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("begun")
    assert CheckpointWriter(tmp_path, resume=True).folder == tmp_path
    message = (
        f"expected a new or empty folder, found {name}; choose another, remove it, or resume it"
    )
    with pytest.raises(CheckpointInvalid, match=f"{re.escape(message)}$"):
        CheckpointWriter(tmp_path)
    assert (tmp_path / name).read_text() == "begun"


@pytest.mark.parametrize(
    "name", ["mine", "best-x.safetensors", "best.safetensors", "best-1.safetensors.old", "settings"]
)
def test_a_folder_that_holds_anything_else_is_refused_by_its_name_also_to_be_resumed(
    name: str, tmp_path: Path
) -> None:
    for one in (*OURS, name):
        (tmp_path / one).write_text("mine")
    message = (
        f"expected a new or empty folder or a checkpoint, found {name}; choose another, remove it"
    )
    with pytest.raises(CheckpointInvalid, match=f"{re.escape(message)}$"):
        CheckpointWriter(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*OURS, name])


def test_of_many_files_in_the_way_five_are_named(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"file {number}").write_text("mine")
    with pytest.raises(CheckpointInvalid, match="found file 0, file 1, file 2, file 3, file 4; "):
        CheckpointWriter(tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_a_writer_refuses_a_file_in_its_place_and_leaves_it(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(CheckpointInvalid, match="out: expected a folder, found a file"):
        CheckpointWriter(tmp_path / "out", resume)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_writer_refuses_a_path_that_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="File name too long"):
        CheckpointWriter(tmp_path / ("long" * 100))


def test_a_folder_that_cannot_be_made_is_refused_by_name(
    settings: Settings, prepared: Prepared, split: Split, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    writer = CheckpointWriter(tmp_path / "file" / "out")
    with pytest.raises(CheckpointInvalid, match=r"out: expected to make this folder: .*Not a dir"):
        writer.begin(settings, held_out(settings, prepared, split))
    assert (tmp_path / "file").read_text() == "mine"


def half_written(path: Path) -> None:
    path.write_bytes(b"half of what was to be")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused_by_safetensors(path: Path) -> None:
    save_file({"weight": torch.ones(2)}, path.parent / "absent" / "folder")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (half_written, "No space left on device"),
        (refused_by_safetensors, "No such file or directory"),
    ],
    ids=["disk full", "safetensors"],
)
def test_a_write_that_fails_leaves_the_file_before_it_and_no_part(
    write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    writer = CheckpointWriter(tmp_path)
    writer.write("last.safetensors", lambda path: path.write_text("whole"))
    with pytest.raises(
        CheckpointInvalid,
        match=rf"last\.safetensors: expected to write this file: .*{message}.*; what was saved "
        "before is untouched",
    ):
        writer.write("last.safetensors", write)
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]
    assert (tmp_path / "last.safetensors").read_text() == "whole"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_takes_its_name_only_once_it_is_safely_on_the_disk(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CheckpointWriter(tmp_path)
    seen: list[tuple[str, str | None]] = []
    whole = {"fsync": os.fsync, "replace": os.replace}

    def looked(name: str) -> Callable[..., object]:
        def look(*arguments: Any) -> object:
            file = tmp_path / "last.safetensors"
            seen.append((name, file.read_text() if file.exists() else None))
            if len(seen) > 2 and name == call:
                raise OSError(errno.EIO, "broken")
            return whole[name](*arguments)

        return look

    for name in whole:
        monkeypatch.setattr(os, name, looked(name))
    writer.write("last.safetensors", lambda path: path.write_text("one"))
    assert seen == [("fsync", None), ("replace", None)]
    with pytest.raises(CheckpointInvalid, match=r"expected to write this file: .*broken"):
        writer.write("last.safetensors", lambda path: path.write_text("two"))
    assert (tmp_path / "last.safetensors").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("file", ["best-2.safetensors", MANIFEST])
def test_a_description_that_cannot_be_written_leaves_the_one_before_whole(
    file: str,
    writer: CheckpointWriter,
    model: HierarchicalReasoningModel,
    prepared: Prepared,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer.describe(described(prepared, split, [2.0]), model)
    before = load_checkpoint(writer.folder)
    replace_ = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointInvalid, match=f"{file}: expected to write .*No space left"):
        writer.describe(described(prepared, split, [2.0, 1.0]), model)
    assert load_checkpoint(writer.folder).sha256 == before.sha256
    monkeypatch.undo()
    writer.describe(described(prepared, split, [2.0, 1.0]), model)  # once there is space
    assert load_checkpoint(writer.folder).description.best_epoch == 2
    writer.keep_only(2)
    assert only(writer.folder, BEST).name == "best-2.safetensors"
