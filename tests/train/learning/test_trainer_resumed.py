"""Training that was stopped, killed or had no space to write, and goes on."""

import errno
import os
import pkgutil
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import content
from lightning_fabric import Fabric
from safetensors import SafetensorError
from training_runs import ONE_CYCLE, REPORTS, SHORT, stopped

from hrm_train import extend_vocabulary, load_checkpoint, train
from hrm_train.data.prepared import Prepared
from hrm_train.errors import CheckpointInvalid, TrainingStopped
from hrm_train.learning import trainer
from hrm_train.learning.epochs import Progress
from hrm_train.learning.run import Run
from hrm_train.learning.state import State
from hrm_train.learning.trainer import standing, train_folds
from hrm_train.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def short(make_settings: MakeSettings) -> Settings:
    return make_settings(SHORT | ONE_CYCLE)


@pytest.mark.parametrize("after", range(1, REPORTS + 1))
def test_a_run_stopped_at_any_step_and_resumed_writes_the_bytes_of_one_that_was_not(
    after: int,
    short: Settings,
    tensors: Path,
    unstopped: Path,
    told: list[Progress],
    tmp_path: Path,
) -> None:
    stopped(short, tensors, tmp_path / "out", after)
    again: list[Progress] = []
    torch.manual_seed(after)
    checkpoint = train(short, tensors, tmp_path / "out", again.append, resume=True)
    assert content(tmp_path / "out") == content(unstopped)
    assert checkpoint.sha256 == load_checkpoint(unstopped).sha256
    # the step that was stopped in is done again; the report of an epoch needs a step before it
    ended = after > 1 and len(told[after - 1].epochs) > len(told[after - 2].epochs)
    assert repr(again) == repr(told[after if ended else after - 1 :])


def test_a_run_stopped_again_and_again_writes_the_same_bytes_too(
    short: Settings, tensors: Path, unstopped: Path, tmp_path: Path
) -> None:
    stopped(short, tensors, tmp_path / "out", 2)
    for after in (1, 2, 3):
        stopped(short, tensors, tmp_path / "out", after, resume=True)
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)


@pytest.fixture(scope="module")
def seldom(make_settings: MakeSettings) -> Settings:
    """Saved after each epoch alone, or when it is asked to stop."""
    return make_settings(SHORT | ONE_CYCLE | {"training.save_minutes": 1e6})


@pytest.fixture(scope="module")
def unstopped_seldom(
    seldom: Settings, tensors: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Progress]]:
    """The folder of such a run that was not stopped, and what it told."""
    folder, told = tmp_path_factory.mktemp("seldom") / "checkpoint", list[Progress]()
    train(seldom, tensors, folder, told.append)
    return folder, told


@pytest.mark.parametrize("after", [4, 8])
def test_a_run_that_saves_seldom_goes_on_from_its_last_epoch(
    after: int,
    seldom: Settings,
    tensors: Path,
    unstopped_seldom: tuple[Path, list[Progress]],
    tmp_path: Path,
) -> None:
    settings, (folder, whole) = seldom, unstopped_seldom
    stopped(settings, tensors, tmp_path / "out", after)
    again: list[Progress] = []
    train(settings, tensors, tmp_path / "out", again.append, resume=True)
    first = 1 + [len(progress.epochs) for progress in whole].index(1)
    assert repr(again) == repr(whole if after <= first else whole[first:])
    assert content(tmp_path / "out") == content(folder)


@pytest.mark.parametrize(
    ("after", "where"),
    [
        (1, "step 1, in epoch 1 of 2"),
        (4, "step 4, in epoch 1 of 2"),
        (5, "step 4, the end of epoch 1 of 2"),
    ],
)
def test_a_run_that_is_asked_to_stop_saves_the_step_it_is_at(
    after: int,
    where: str,
    seldom: Settings,
    tensors: Path,
    unstopped_seldom: tuple[Path, list[Progress]],
    tmp_path: Path,
) -> None:
    asked = iter(range(100))
    out = tmp_path / "out"
    with pytest.raises(TrainingStopped, match=f"out holds training up to {where}$"):
        train(seldom, tensors, out, stop=lambda: next(asked) == after)
    ((folder, position),) = standing(out).items()
    assert folder == out
    assert position is not None
    assert position.told(2) == where
    train(seldom, tensors, out, resume=True)
    assert content(out) == content(unstopped_seldom[0])


def test_a_run_that_is_asked_to_stop_before_its_first_step_writes_nothing(
    short: Settings, tensors: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingStopped, match=r"out is as it was$"):
        train(short, tensors, tmp_path / "out", stop=lambda: True)
    assert list(tmp_path.iterdir()) == []
    assert standing(tmp_path / "out") == {tmp_path / "out": None}


def test_folds_that_are_asked_to_stop_stand_where_each_of_them_is(
    short: Settings, tensors: Path, tmp_path: Path
) -> None:
    told: list[Progress] = []

    def in_second() -> bool:
        return bool(told) and told[-1].fold == 2

    with pytest.raises(TrainingStopped, match="fold-2 holds training up to step 1, in epoch 1 of"):
        train_folds(short, tensors, tmp_path, 2, told.append, stop=in_second)
    found = standing(tmp_path, 3)
    assert [path.name for path in found] == ["fold-1", "fold-2", "fold-3"]
    epochs = [position and len(position.epochs) for position in found.values()]
    assert epochs == [2, 0, None]


def test_what_holds_no_training_stands_nowhere(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(CheckpointInvalid, match="expected a new or empty folder or a checkpoint"):
        standing(tmp_path)
    shutil.copytree(trained, tmp_path / "out")
    (tmp_path / "out" / "last.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointInvalid, match=r"last\.safetensors: expected a state of"):
        standing(tmp_path / "out")
    (tmp_path / "out" / "last.safetensors").unlink()
    with pytest.raises(CheckpointInvalid, match="found a checkpoint without one"):
        standing(tmp_path / "out")


def test_a_finished_run_that_is_resumed_is_as_it_was(
    short: Settings, tensors: Path, unstopped: Path
) -> None:
    before = content(unstopped)
    again: list[Progress] = []
    checkpoint = train(short, tensors, unstopped, again.append, resume=True)
    assert (again, content(unstopped)) == ([], before)
    assert checkpoint.sha256 == load_checkpoint(unstopped).sha256


@pytest.mark.parametrize(
    "there",
    [None, [], ["settings.yaml"], ["settings.yaml", "windows.safetensors"],
     ["settings.yaml", "windows.safetensors", ".last.safetensors.partial"]],
    ids=["no folder", "empty", "settings", "windows too", "half a state too"],
)  # fmt: skip
def test_a_run_that_has_nothing_to_resume_starts(
    there: list[str] | None, short: Settings, tensors: Path, unstopped: Path, tmp_path: Path
) -> None:
    if there is not None:
        (tmp_path / "out").mkdir()
        for name in there:
            (tmp_path / "out" / name).write_text("half")
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training.epochs": 3}, "differs in settings.training.epochs: now 3, saved 2; resume"),
        (
            {"network.hierarchical.N_cycles": 3, "training.clip_norm": 0.5},
            "model.hierarchical.N_cycles: now 3, saved 1; settings.training.clip_norm: now 0.5, sa",
        ),
    ],
)
def test_a_run_is_not_resumed_under_other_settings(
    changes: dict[str, Any],
    named: str,
    tensors: Path,
    unstopped: Path,
    make_settings: MakeSettings,
) -> None:
    before = content(unstopped)
    message = rf"last\.safetensors: expected to resume what was begun, but .*{re.escape(named)}"
    with pytest.raises(CheckpointInvalid, match=message):
        train(make_settings(SHORT | ONE_CYCLE | changes), tensors, unstopped, resume=True)
    assert content(unstopped) == before


def test_a_run_is_not_resumed_on_other_data(
    short: Settings, prepared: Prepared, unstopped: Path, tmp_path: Path
) -> None:
    before = content(unstopped)
    features = prepared.features.copy()
    features[0, 0] += 1e-6
    other = replace(prepared, features=features)
    other.save(tmp_path / "other.safetensors")
    message = f"differs in data: now {other.digest()}, saved {prepared.digest()}; resume with the"
    with pytest.raises(CheckpointInvalid, match=message):
        train(short, tmp_path / "other.safetensors", unstopped, resume=True)
    assert content(unstopped) == before


def test_a_checkpoint_without_a_state_is_not_written_over(
    short: Settings, tensors: Path, unstopped: Path, tmp_path: Path
) -> None:
    extend_vocabulary(unstopped, tmp_path / "extended", [("Adani", "5")])
    before = content(tmp_path / "extended")
    message = "last.safetensors: expected a state of training to resume, found a checkpoint without"
    with pytest.raises(CheckpointInvalid, match=message):
        train(short, tensors, tmp_path / "extended", resume=True)
    assert content(tmp_path / "extended") == before


def test_a_damaged_state_is_refused_and_kept(
    short: Settings, tensors: Path, tmp_path: Path
) -> None:
    stopped(short, tensors, tmp_path / "out", 3)
    last = tmp_path / "out" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    before = content(tmp_path / "out")
    with pytest.raises(CheckpointInvalid, match=r"last\.safetensors: expected a state of training"):
        train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("resume", "message"),
    [
        (False, "expected a new or empty folder, found precious; choose another, remove it, or re"),
        (True, "expected a new or empty folder or a checkpoint, found precious; choose another"),
    ],
)
def test_a_folder_of_other_things_is_refused_before_any_data_is_read(
    resume: bool, message: str, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(CheckpointInvalid, match=message):
        train(settings, [tmp_path / "absent.csv"], tmp_path, resume=resume)
    assert content(tmp_path) == {"precious": b"mine"}


def test_a_process_that_is_not_the_first_of_several_writes_nothing(
    short: Settings,
    tensors: Path,
    unstopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It finds what the first has begun, or has ended, to write."""
    out = tmp_path / "out"
    shutil.copytree(unstopped, out)
    monkeypatch.setattr(trainer, "is_first_process", lambda: False)
    monkeypatch.setattr(Fabric, "is_global_zero", False)
    (out / "last.safetensors").unlink()
    before = content(out)
    checkpoint = train(short, tensors, out)
    assert content(out) == before
    assert checkpoint.sha256 == load_checkpoint(unstopped).sha256


def test_a_gpu_runs_what_was_compiled_after_the_weights_were_restored(
    short: Settings, tensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(short, tensors, tmp_path / "out", 3)
    saved = State.load(tmp_path / "out" / "last.safetensors").position.step
    steps: list[int] = []
    monkeypatch.setattr(Run, "compile", lambda run: steps.append(run.steps))
    monkeypatch.setattr(trainer, "is_gpu", lambda _: True)
    train(short, tensors, tmp_path / "out", resume=True)
    assert steps == [saved]
    assert saved > 0


# a disk that is full


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(whole: Callable[..., Any], error: Exception, nth: int, name: str) -> Any:
    """`whole`, but the `nth` call that has to do with a file called `name` fails half way."""
    calls = []

    def call(*arguments: Any, **named: Any) -> Any:
        paths = [one for one in arguments if isinstance(one, Path)]  # the first is written to
        if name in {path.name for path in paths}:
            calls.append(name)
            if len(calls) == nth:
                paths[0].write_bytes(b"half")
                raise error
        return whole(*arguments, **named)

    return call


def refused(settings: Settings, data: Path, out: Path) -> list[Progress]:
    """What was told until a file could not be written."""
    told: list[Progress] = []
    with pytest.raises(
        CheckpointInvalid,
        match=r"expected to write this file: .*No space left on device.*; what was saved before is",
    ):
        train(settings, data, out, told.append)
    assert not list(out.glob(".*"))
    return told


@pytest.mark.parametrize(
    ("target", "name", "nth", "error"),
    [
        ("os.replace", "settings.yaml", 1, FULL),
        ("os.replace", "windows.safetensors", 1, FULL),
        ("os.replace", "last.safetensors", 1, FULL),
        ("os.replace", "last.safetensors", 3, FULL),
        ("os.replace", "best-1.safetensors", 1, FULL),
        ("os.replace", "checkpoint.json", 1, FULL),
        ("hrm_train.data.windows.Windows.save", ".windows.safetensors.partial", 1, FULL),
        ("hrm_train.learning.state.State.save", ".last.safetensors.partial", 2, FULL),
        (
            "hrm_train.learning.state.State.save",
            ".last.safetensors.partial",
            4,
            SafetensorError("I/O error: No space left on device"),
        ),
    ],
)
def test_a_write_that_fails_in_the_first_epoch_leaves_what_can_be_resumed(
    target: str,
    name: str,
    nth: int,
    error: Exception,
    short: Settings,
    tensors: Path,
    unstopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(target, failing(pkgutil.resolve_name(target), error, nth, name))
        refused(short, tensors, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint.json").exists()
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)


@pytest.mark.parametrize(
    ("target", "name", "nth", "error"),
    [
        ("os.replace", "last.safetensors", 9, FULL),
        ("os.replace", "last.safetensors", 8, FULL),
        ("os.replace", "best-2.safetensors", 1, FULL),
        ("os.replace", "checkpoint.json", 2, FULL),
        (
            "hrm_train.network.model.HierarchicalReasoningModel.save_model",
            ".best-2.safetensors.partial",
            1,
            FULL,
        ),
        (
            "hrm_train.learning.state.State.save",
            ".last.safetensors.partial",
            8,
            SafetensorError("I/O error: No space left on device"),
        ),
    ],
)
def test_a_write_that_fails_later_leaves_what_can_be_loaded_and_resumed(
    target: str,
    name: str,
    nth: int,
    error: Exception,
    short: Settings,
    tensors: Path,
    unstopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(target, failing(pkgutil.resolve_name(target), error, nth, name))
        told = refused(short, tensors, tmp_path / "out")
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.description.best_epoch == 1
    assert loaded.description.epochs == told[-1].epochs[:1]
    train(short, tensors, tmp_path / "out", resume=True)
    assert content(tmp_path / "out") == content(unstopped)
