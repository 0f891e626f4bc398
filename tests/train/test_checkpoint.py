"""Checkpoint folders: written whole, read back bit for bit, refused once changed."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal
from safetensors.torch import load_file, save_file

from hrm_train import HierarchicalReasoningModel, load_checkpoint, load_model
from hrm_train.checkpoint import CheckpointWriter, Epoch
from hrm_train.errors import CheckpointInvalid
from hrm_train.prepared import Prepared
from hrm_train.settings import Settings, load_settings, render
from hrm_train.split import Split
from hrm_train.trainer import Batch, held_out

HASHED = ("best.safetensors", "last.safetensors", "settings.yaml", "windows.safetensors")
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


# what is written is what is read


@pytest.fixture
def written(
    model: HierarchicalReasoningModel,
    settings: Settings,
    prepared: Prepared,
    split: Split,
    tmp_path: Path,
) -> Path:
    """A folder of two epochs, the first of them the best."""
    writer = CheckpointWriter(tmp_path / "written")
    writer.begin(settings, held_out(settings, prepared, split))
    epochs: tuple[Epoch, ...] = ()
    for number in (1, 2):
        loss = float(number)
        epochs += (
            Epoch(number=number, train_loss=loss, validation_loss=loss, accuracy=0.5, regret=0.1),
        )
        writer.save_weights(model, best=number == 1)
        writer.describe(prepared.manifest, epochs, 1, 70, 20, split.boundary)
        model.value_head.value.bias.data += 1
    model.value_head.value.bias.data -= 2
    return writer.folder


def test_a_loaded_checkpoint_equals_the_saved_one_bit_for_bit(
    written: Path,
    model: HierarchicalReasoningModel,
    settings: Settings,
    prepared: Prepared,
    split: Split,
    batch: Batch,
) -> None:
    checkpoint = load_checkpoint(written)
    assert not checkpoint.model.training
    assert checkpoint.settings == checkpoint.model.settings == settings
    assert_equal(dict(checkpoint.model.state_dict()), dict(model.state_dict()))
    inputs = (batch.features, batch.account, batch.instrument, batch.timeframe)
    assert_equal(checkpoint.model(*inputs), model(*inputs))
    for name, array in vars(held_out(settings, prepared, split)).items():
        np.testing.assert_array_equal(getattr(checkpoint.windows, name), array, strict=True)

    description = checkpoint.description
    assert description.vocabulary == prepared.manifest.vocabulary
    assert (description.train_samples, description.validation_samples) == (70, 20)
    assert (description.boundary, description.best_epoch) == (split.boundary, 1)
    assert [epoch.validation_loss for epoch in description.epochs] == [1.0, 2.0]
    assert (description.features, description.account) == (
        prepared.manifest.features,
        prepared.manifest.account,
    )
    assert checkpoint.sha256 == hashlib.sha256((written / MANIFEST).read_bytes()).hexdigest()


def test_best_keeps_the_weights_of_its_epoch_and_last_those_of_the_last(written: Path) -> None:
    best, last = (load_file(written / f"{name}.safetensors") for name in ("best", "last"))
    assert_equal(last.pop("value_head.value.bias"), best.pop("value_head.value.bias") + 1)
    assert_equal(last, best)


def test_the_settings_are_written_for_reading(trained: Path) -> None:
    settings = load_checkpoint(trained).settings
    assert (trained / "settings.yaml").read_text() == render(settings)
    assert load_settings(trained / "settings.yaml") == settings


def test_load_model_takes_a_folder_or_a_file(trained: Path) -> None:
    best = load_checkpoint(trained).model
    assert_equal(dict(load_model(trained).state_dict()), dict(best.state_dict()))
    from_file = load_model(trained / "best.safetensors")
    assert_equal(dict(from_file.state_dict()), dict(best.state_dict()))
    assert from_file.settings == best.settings


# what is refused


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", HASHED)
def test_a_changed_byte_is_refused(name: str, where: float, checkpoint: Path) -> None:
    content = bytearray((checkpoint / name).read_bytes())
    expected = hashlib.sha256(content).hexdigest()
    content[int(where * (len(content) - 1))] ^= 1
    (checkpoint / name).write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(
        CheckpointInvalid, match=f"{name}: expected sha256 {expected}, found {found}"
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
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointInvalid, match=f"{name}: expected a file of the checkpoint"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["files"].update({"best.safetensors": "0" * 64}),
            "best.safetensors: expected sha256 0000",
        ),
        (
            lambda d: d.update(format_version=2),
            "expected format version 1, found 2; train again",
        ),
        (lambda d: d.update(feature_version=2), r"others \(version 2\); train again"),
        (lambda d: d["features"].reverse(), "expected this library's features and account"),
        (lambda d: d["account"].pop(), "expected this library's features and account"),
        (
            lambda d: d["files"].pop("best.safetensors"),
            r"files: expected .* found \['last.safetensors', 'settings.yaml', 'windows",
        ),
        (lambda d: d.update(extra=1), "checkpoint.json: extra: unknown"),
        (lambda d: d.pop("boundary"), "checkpoint.json: boundary: expected, but missing"),
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
    message = "settings.yaml differs from the settings inside best.safetensors"
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(checkpoint)


def test_weights_of_other_dimensions_are_refused_with_the_tensor(
    checkpoint: Path, make_settings: Callable[..., Settings]
) -> None:
    path = checkpoint / "best.safetensors"
    wider = make_settings({"network.h_module.ffn_dim": 32}).model_dump_json()
    save_file(load_file(path), path, {"settings": wider})
    sign_again(checkpoint, "best.safetensors")
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


def test_a_writer_refuses_a_file_in_its_place_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(CheckpointInvalid, match="out: expected a new or empty folder"):
        CheckpointWriter(tmp_path / "out")
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


def test_a_write_that_fails_leaves_the_file_before_it_and_no_part(
    model: HierarchicalReasoningModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CheckpointWriter(tmp_path)
    writer.save_weights(model, best=False)
    before = (tmp_path / "last.safetensors").read_bytes()

    def half(self: HierarchicalReasoningModel, path: Path) -> None:
        path.write_bytes(before[: len(before) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(HierarchicalReasoningModel, "save_model", half)
    with pytest.raises(CheckpointInvalid, match=r"last.safetensors: expected to write .*disk full"):
        writer.save_weights(model, best=True)
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]
    assert (tmp_path / "last.safetensors").read_bytes() == before
