"""`hrm train` leaves a checkpoint, says how it went, and goes on with one."""

import importlib
import math
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.tensorboard
from command import BAD_INPUT, DONE, answer, hrm, unframed
from folders import content
from interrupted import SERVING
from synthetic import SMALL
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import hrm_train.learning.devices
from hrm_cli.app import app
from hrm_cli.show import console, training
from hrm_cli.verbs.train import failing_threads_quiet
from hrm_train import load_checkpoint, load_settings
from hrm_train import train as fit
from hrm_train.learning.epochs import Progress
from hrm_train.settings import parse_settings, render


@pytest.fixture(autouse=True, scope="module")
def lines_per_epoch_alone() -> Iterator[None]:
    """None every half minute beside them, however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Lines, "EVERY", math.inf)
        yield


@pytest.fixture(scope="module")
def trained(few_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint folder made by `hrm train`, and what that printed."""
    folder = tmp_path_factory.mktemp("cli")
    two_epochs = {**SMALL, "training": {**SMALL["training"], "epochs": 2}}
    (folder / "settings.yaml").write_text(render(parse_settings(two_epochs)))
    result = hrm(
        "train", folder / "settings.yaml", "--data", few_bars, "--out", folder / "checkpoint"
    )
    return folder / "checkpoint", result


def test_train_writes_a_checkpoint_and_shows_its_epochs(trained: tuple[Path, Any]) -> None:
    folder, result = trained
    assert result.exit_code == DONE
    description = load_checkpoint(folder).description
    assert (folder / f"best-{description.best_epoch}.safetensors").exists()
    for epoch in description.epochs:
        row = rf"{epoch.number} .* {epoch.train_loss:.4f} .* {epoch.validation_loss:.4f} "
        assert re.search(rf"{row}.* {epoch.accuracy:.1%} .* {epoch.segments:.2f} ", result.stdout)
    assert "Beta_15" in result.stdout
    assert f"wrote {folder}" in result.stderr


def test_without_a_terminal_train_says_a_line_per_epoch(
    trained: tuple[Path, Any], tensors: Path, tmp_path: Path
) -> None:
    folder, result = trained
    told: dict[int, Progress] = {}
    read = load_settings(folder / "settings.yaml")
    fit(read, [tensors], tmp_path / "again", lambda one: told.setdefault(len(one.epochs), one))
    *lines, wrote = result.stderr.splitlines()
    assert wrote == f"wrote {folder}"
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        one, epoch = told[number], load_checkpoint(folder).description.epochs[number - 1]
        assert [*one.losses] == ["policy", "value", "quantity", "halting", "total"]
        losses = ", ".join(f"{name} {value:.3f}" for name, value in one.losses.items())
        share = f"{min(1, one.samples / one.of):.0%}"
        said = f"{share}, {losses}; epoch {number}: {epoch.validation_loss:.3f}"
        assert re.fullmatch(rf"{re.escape(said)}, [\d,]+ samples/s, \d+ min left", line)
    assert lines[-1].startswith("100%, ")


def test_train_reads_prepared_tensors_and_prints_json(
    tensors: Path, tmp_path: Path, trained: tuple[Path, Any]
) -> None:
    said = answer(
        "train", trained[0] / "settings.yaml", "--data", tensors, "--out", tmp_path / "two"
    )
    description = load_checkpoint(trained[0]).description
    assert said == {
        "best_epoch": description.best_epoch,
        "epochs": [asdict(epoch) for epoch in description.epochs],
        "skipped": [],
    }
    assert content(tmp_path / "two") == content(trained[0])  # same seed, same bytes


def test_train_resumes_what_was_stopped(
    tensors: Path, tmp_path: Path, trained: tuple[Path, Any]
) -> None:
    def stop(progress: Any) -> None:
        if progress.epochs:
            raise KeyboardInterrupt

    settings, out = trained[0] / "settings.yaml", tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fit(load_settings(settings), tensors, out, stop)
    result = hrm("train", settings, "--data", tensors, "--out", out)
    assert result.exit_code == BAD_INPUT
    assert "choose another, remove it, or resume it" in result.stderr
    said = answer("train", settings, "--data", tensors, "--out", out, "--resume")
    assert [epoch["number"] for epoch in said["epochs"]] == [1, 2]
    assert content(out) == content(trained[0])
    # and once more, when there is nothing left to do
    assert answer("train", settings, "--data", tensors, "--out", out, "--resume") == said


def test_a_resume_under_other_settings_exits_with_2_and_names_them(
    settings: Path, tensors: Path, trained: tuple[Path, Any]
) -> None:
    before = content(trained[0])
    result = hrm("train", settings, "--data", tensors, "--out", trained[0], "--resume")
    assert result.exit_code == BAD_INPUT
    assert "it differs in settings.training.epochs: now 1, saved 2; resume with" in result.stderr
    assert content(trained[0]) == before


def test_train_goes_on_from_the_weights_of_a_checkpoint(
    settings: Path, tensors: Path, tmp_path: Path, trained: tuple[Path, Any]
) -> None:
    said = answer(
        "train", settings, "--data", tensors, "--out", tmp_path / "out", "--init-from", trained[0]
    )
    assert len(said["epochs"]) == 1
    found = load_checkpoint(tmp_path / "out").description
    assert found.initialized_from == load_checkpoint(trained[0]).sha256


def test_train_goes_on_in_integers_where_asked_to(
    settings: Path, tensors: Path, tmp_path: Path, trained: tuple[Path, Any]
) -> None:
    answer(
        "train", settings, "--data", tensors, "--out", tmp_path / "out", "--init-from", trained[0],
        "--quantise",
    )  # fmt: skip
    found = load_checkpoint(tmp_path / "out")
    assert found.model.quantised
    assert found.description.quantised


@pytest.fixture(scope="module")
def folds(tensors: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of two folds made by `hrm train --folds`, and what that printed."""
    folder = tmp_path_factory.mktemp("folds")
    result = hrm(
        "train", tensors.parent / "settings.yaml", "--data", tensors, "--out", folder,
        "--folds", 2,
    )  # fmt: skip
    return folder, result


def test_folds_are_trained_each_into_a_folder_of_its_own(folds: tuple[Path, Any]) -> None:
    folder, result = folds
    assert result.exit_code == DONE, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["fold-1", "fold-2"]
    first, second = (load_checkpoint(folder / f"fold-{n}").description for n in (1, 2))
    assert first.judged_until == second.judged_from
    assert result.stdout.count("best action") == 2  # a table of epochs each
    lines = result.stderr.splitlines()
    assert [line[:18] for line in lines[:-1]] == ["fold 1 of 2, 100%,", "fold 2 of 2, 100%,"]
    assert lines[-1] == f"wrote {folder}"


def test_folds_are_told_as_json_and_can_be_resumed(tensors: Path, folds: tuple[Path, Any]) -> None:
    settings = tensors.parent / "settings.yaml"
    said = answer("train", settings, "--data", tensors, "--out", folds[0], "--folds", 2, "--resume")
    described = [load_checkpoint(folds[0] / f"fold-{n}").description for n in (1, 2)]
    assert said == {
        "folds": [
            {"best_epoch": one.best_epoch, "epochs": [asdict(epoch) for epoch in one.epochs]}
            for one in described
        ],
        "skipped": [],
    }


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(name)]


def test_train_writes_its_progress_for_tensorboard(
    settings: Path, tensors: Path, tmp_path: Path
) -> None:
    said = answer(
        "train", settings, "--data", tensors, "--out", tmp_path / "out",
        "--tensorboard", tmp_path / "board",
    )  # fmt: skip
    (epoch,) = said["epochs"]
    for name in ("validation_loss", "segments"):
        ((number, value),) = scalars(tmp_path / "board", f"epoch/{name}")
        assert (number, value) == (1, pytest.approx(epoch[name], rel=1e-6))
    steps = scalars(tmp_path / "board", "loss/total")
    assert [step for step, _ in steps] == [*range(1, len(steps) + 1)]
    assert sum(loss for _, loss in steps) / len(steps) == pytest.approx(epoch["train_loss"])


def test_of_several_processes_only_the_first_speaks(
    settings: Path, tensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hrm_train.learning.devices, "is_first_process", lambda: False)
    for stream in (console.out, console.err):
        monkeypatch.setattr(stream, "quiet", False)  # so that it is put back
    result = hrm(
        "train", settings, "--data", tensors, "--out", tmp_path / "out",
        "--tensorboard", tmp_path / "board", "--json",
    )  # fmt: skip
    assert (result.exit_code, result.output) == (DONE, "")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "cuda"), "device: expected 1 CUDA device, found 0; ask for fewer or for the"),
        (("--device", "cuda", "--devices", "2"), "device: expected 2 CUDA devices, found 0; ask"),
        (("--devices", "3"), "expected a multiple of the number of processes, found 64 for 3"),
        (("--device", "tpu"), "Invalid value for '--device'"),
        (("--devices", "0"), "Invalid value for '--devices'"),
        (("--nodes", "0"), "Invalid value for '--nodes'"),
        (("--folds", "0"), "Invalid value for '--folds'"),
        (("--folds", "40"), "fold 1 of 40: expected samples to train on, to validate on and to"),
        (("--folds", "2", "--init-from", "x"), "x/fold-1: expected a checkpoint folder"),
        (("--folds", "2", "--quantise"), "quantise: expected a checkpoint to go on from, found"),
        (("--quantise",), "quantise: expected a checkpoint to go on from, found none; train one"),
        (("--init-from", "absent"), "absent: expected a checkpoint folder"),
        (("--tensorboard", "settings.yaml"), "settings.yaml: expected a folder to write events to"),
    ],
)
def test_what_train_cannot_do_exits_with_2_and_leaves_nothing(
    options: tuple[str, ...],
    message: str,
    settings: Path,
    tensors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    result = hrm("train", settings, "--data", tensors, "--out", "out", *options)
    assert result.exit_code == BAD_INPUT
    assert message in unframed(result.stderr)
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["settings.yaml"]


@pytest.mark.usefixtures("imported_anew")
def test_training_from_tensors_needs_no_serving_library(
    settings: Path, tensors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all our modules anew; whether torch needs one, processes of test_interrupts.py tell."""
    for name in [name for name in sys.modules if name.partition(".")[0] in SERVING]:
        monkeypatch.delitem(sys.modules, name)
    for name in SERVING:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hrm_runtime.artifact.session")
    fresh = importlib.import_module("hrm_cli.app")
    arguments = ["train", settings, "--data", tensors, "--out", tmp_path / "new"]
    result = CliRunner().invoke(fresh.app, list(map(str, arguments)))
    assert result.exit_code == DONE, result.output
    assert fresh.app is not app
    assert (tmp_path / "new" / "checkpoint.json").exists()


def test_a_thread_that_cannot_write_says_nothing_and_another_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: told.append(arguments[1]))
    before = threading.excepthook
    other = RuntimeError("other")
    with failing_threads_quiet():
        for error in (OSError(28, "full"), other):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
    assert told == [other]
    assert threading.excepthook is before


def fail(error: Exception) -> None:
    raise error
