"""Each verb does its library call, says what happened, and exits with the promised code."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.utils.tensorboard
from rich.console import Console
from synthetic import SMALL, random_bars
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import hrm_train.learning.devices
from hrm_cli import show
from hrm_cli.app import Device, Precision, Preset, app
from hrm_export.errors import LimitExceeded
from hrm_export.graph.limits import MOST_MEGABYTES
from hrm_export.proof.gates import FLOAT_TOLERANCES
from hrm_runtime import Account, Reason, load, load_contract, read_csv
from hrm_runtime.artifact import contract as runtime_contract
from hrm_runtime.artifact.decision import hold
from hrm_runtime.market.csv_files import write_csv
from hrm_train import load_checkpoint, load_settings
from hrm_train import train as fit
from hrm_train.data.prepared import Prepared
from hrm_train.settings import PRESETS, parse_settings, preset, render

DONE, GATE_FAILED, BAD_INPUT = 0, 1, 2


@pytest.fixture(autouse=True, scope="module")
def lines_per_epoch_alone() -> Iterator[None]:
    """None every half minute beside them, however slow the machine is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(show.Lines, "EVERY", math.inf)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(render(parse_settings(SMALL)))
    return path


def hrm(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    """The one JSON object of a successful call."""
    result = hrm(*arguments, "--json")
    assert result.exit_code == DONE, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_names_known_without_torch_are_those_of_the_libraries() -> None:
    assert {name.value for name in Preset} == set(PRESETS)
    assert tuple(name.value for name in Device) == get_args(hrm_train.learning.devices.Device)
    assert tuple(name.value for name in Precision) == get_args(runtime_contract.Precision)


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_init_writes_settings_that_load_as_the_preset(name: str, tmp_path: Path) -> None:
    result = hrm("init", tmp_path / "new", "--preset", name)
    assert result.exit_code == DONE
    assert str(tmp_path / "new" / "settings.yaml") in result.stderr
    assert load_settings(tmp_path / "new" / "settings.yaml") == preset(name)


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("mine")
    result = hrm("init", tmp_path)
    assert result.exit_code == BAD_INPUT
    assert "expected to write a new file" in result.stderr
    assert (tmp_path / "settings.yaml").read_text() == "mine"


def test_prepare_writes_tensors_and_says_what_it_read(
    settings: Path, bars_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bars.safetensors"
    said = answer("prepare", settings, "--data", bars_folder, "--out", out)
    prepared = Prepared.load(out)
    assert said["samples"] == len(prepared)
    assert said["series"] == [asdict(one) for one in prepared.manifest.series]


def test_prepare_shows_a_table_and_names_what_it_skipped(
    settings: Path, bars_folder: Path, tmp_path: Path
) -> None:
    write_csv(random_bars(50), tmp_path / "Short_5.csv")
    result = hrm(
        "prepare", settings, "--data", bars_folder, "--data", tmp_path / "Short_5.csv",
        "--out", tmp_path / "bars.safetensors",
    )  # fmt: skip
    assert result.exit_code == DONE
    assert "Alpha_5" in result.stdout
    assert "skipped: 50 bars, 212 needed" in result.stdout


@pytest.fixture
def mixed_folder(bars_folder: Path, tmp_path: Path) -> Path:
    """`bars_folder`, and beside it series that nothing can be done with."""
    folder = Path(shutil.copytree(bars_folder, tmp_path / "mixed"))
    write_csv(random_bars(50), folder / "Short_5.csv")
    write_csv(random_bars(300), folder / "Alpha_weekly.csv")
    return folder


@pytest.mark.parametrize("verb", ["prepare", "train", "evaluate", "parity", "export"])
def test_every_verb_goes_on_without_the_series_it_can_do_nothing_with_and_names_them_last(
    verb: str,
    mixed_folder: Path,
    settings: Path,
    checkpoint_folder: Path,
    artifact_folder: Path,
    tmp_path: Path,
) -> None:
    data = ("--data", mixed_folder)
    given: dict[str, tuple[object, ...]] = {
        "prepare": (settings, *data, "--out", tmp_path / "{}.safetensors"),
        "train": (settings, *data, "--out", tmp_path / "{}"),
        "evaluate": (checkpoint_folder, *data),
        "parity": (artifact_folder, "--checkpoint", checkpoint_folder, *data, "--windows", 64),
        "export": (
            *(checkpoint_folder, "--out", tmp_path / "{}", "--precision", "int8"),
            *("--golden", mixed_folder, "--calibration", mixed_folder),
        ),
    }
    said = answer(verb, *(str(one).format("json") for one in given[verb]))
    assert {(one["instrument"], one["timeframe"]) for one in said["skipped"]} == {
        ("Alpha", "weekly"),
        ("Short", "5"),
    }
    assert all(one.keys() == {"instrument", "timeframe", "reason"} for one in said["skipped"])
    result = hrm(verb, *(str(one).format("table") for one in given[verb]))
    assert result.exit_code == DONE, result.output
    assert result.stdout.splitlines()[-2:] == [
        f"skipped {one['instrument']}_{one['timeframe']}: {one['reason']}"
        for one in said["skipped"]
    ]
    reasons = {one["instrument"]: one["reason"] for one in said["skipped"]}
    assert reasons["Alpha"].startswith("timeframe")
    known = verb in {"prepare", "train"}
    assert reasons["Short"] == "50 bars, 212 needed" if known else "'Short'" in reasons["Short"]


@pytest.mark.parametrize("package", ["talib", "onnxruntime"])
def test_training_from_tensors_needs_no_serving_library(
    package: str, settings: Path, bars_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bars.safetensors"
    answer("prepare", settings, "--data", bars_folder, "--out", out)
    result = run_without(
        package, "train", str(settings), "--data", str(out), "--out", str(tmp_path / "new")
    )
    assert result.returncode == DONE, result.stderr
    assert (tmp_path / "new" / "checkpoint.json").exists()


def test_prepare_refuses_a_file_that_is_there_before_any_work(
    settings: Path, bars_folder: Path
) -> None:
    before = (bars_folder / "Beta_5.csv").read_bytes()
    result = hrm("prepare", settings, "--data", bars_folder, "--out", bars_folder / "Beta_5.csv")
    assert result.exit_code == BAD_INPUT
    assert "expected a name ending in .safetensors" in result.stderr
    assert (bars_folder / "Beta_5.csv").read_bytes() == before


@pytest.fixture(scope="module")
def trained(bars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint folder made by `hrm train`, and what that printed."""
    folder = tmp_path_factory.mktemp("cli")
    two_epochs = {**SMALL, "training": {**SMALL["training"], "epochs": 2}}
    (folder / "settings.yaml").write_text(render(parse_settings(two_epochs)))
    result = hrm(
        "train", folder / "settings.yaml", "--data", bars_folder, "--out", folder / "checkpoint"
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


def test_without_a_terminal_train_says_a_line_per_epoch(trained: tuple[Path, Any]) -> None:
    folder, result = trained
    *lines, wrote = result.stderr.splitlines()
    assert wrote == f"wrote {folder}"
    assert len(lines) == 2
    number = r"\d+\.\d{3}"
    losses = ", ".join(
        f"{name} {number}" for name in ("policy", "value", "quantity", "halting", "total")
    )
    for line, share, epoch in zip(
        lines, ("50%", "100%"), load_checkpoint(folder).description.epochs, strict=True
    ):
        said = f"epoch {epoch.number}: {epoch.validation_loss:.3f}"
        speed = r"[\d,]+ samples/s, \d+ min left"
        assert re.fullmatch(f"{share}, {losses}; {re.escape(said)}, {speed}", line)


@pytest.fixture(scope="module")
def tensors(bars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared file of `bars_folder`."""
    path = tmp_path_factory.mktemp("tensors") / "bars.safetensors"
    settings = path.parent / "settings.yaml"
    settings.write_text(render(parse_settings(SMALL)))
    answer("prepare", settings, "--data", bars_folder, "--out", path)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "quiet", False)  # so that it is put back
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
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["settings.yaml"]


@pytest.mark.usefixtures("quick_export", "wide")
def test_export_writes_an_artifact_and_shows_how_and_the_ladder(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    result = hrm("export", checkpoint_folder, "--out", tmp_path / "one")
    assert result.exit_code == DONE
    shown = rows_of(result.stdout)
    changes, stages = (shown[: shown.index(LADDER)], shown[shown.index(LADDER) + 1 :])
    assert changes[0] == ["pass over the graph", "changes"]
    assert ["fuse rotation and attention", "2"] in changes
    found = load_contract(tmp_path / "one").parity
    assert stages == [
        [
            one.stage, one.reference, f"{one.windows}", f"{one.max_rel:.1e}", "100.00%", "passed",
        ]
        for one in found
    ]  # fmt: skip
    assert [one.stage for one in found] == ["composed", "artifact", "artifact, hard windows"]
    assert result.stderr.splitlines()[-2:] == [
        f"wrote {tmp_path / 'one'}",
        f"id {load(tmp_path / 'one').id}",
    ]
    said = answer("export", checkpoint_folder, "--out", tmp_path / "two")
    model_id = load(tmp_path / "two").id
    assert said == {"path": str(tmp_path / "two"), "model_id": model_id, "skipped": []}


LADDER = ["stage", "against", "windows", "largest difference", "decisions equal", ""]


def rows_of(printed: str) -> list[list[str]]:
    """The rows of the tables in it."""
    lines = [re.split("[┃│]", line) for line in printed.splitlines() if line[:1] in "┃│"]
    return [[cell.strip() for cell in line[1:-1]] for line in lines]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no cell is broken."""
    monkeypatch.setattr(show, "out", Console(width=200))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the library's `export` was asked for by the verb, which then fails."""
    found: dict[str, Any] = {}

    def export(*arguments: object, **named: object) -> None:
        found.update(named, arguments=arguments)
        raise LimitExceeded("too large")

    monkeypatch.setattr("hrm_export.export", export)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {}),
        (("--precision", "fp16"), {"precision": "fp16"}),
        (
            ("--precision", "int8", "--calibration", "a", "--calibration", "b.csv"),
            {"precision": "int8", "calibration": [Path("a"), Path("b.csv")]},
        ),
        (("--golden", "c.csv", "--golden", "d"), {"golden": [Path("c.csv"), Path("d")]}),
        (("--cycles", "1", "--timesteps", "7"), {"cycles": 1, "timesteps": 7}),
        (("--max-megabytes", "12.5"), {"max_megabytes": 12.5}),
    ],
)
def test_options_of_export_reach_the_library(
    options: tuple[str, ...], expected: dict[str, Any], asked: dict[str, Any]
) -> None:
    result = hrm("export", "checkpoint", "--out", "artifact", *options)
    assert result.exit_code == GATE_FAILED
    assert result.stderr.splitlines()[-1] == "hrm: too large"
    defaults = {
        "arguments": (Path("checkpoint"), Path("artifact")),
        "precision": "fp32",
        "calibration": (),
        "golden": (),
        "cycles": None,
        "timesteps": None,
        "max_megabytes": MOST_MEGABYTES,
    }
    assert asked == defaults | expected
    assert type(asked["precision"]) is str


@pytest.mark.usefixtures("quick_export")
def test_export_calibrates_integers_on_bars(
    checkpoint_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    said = answer(
        "export", checkpoint_folder, "--out", tmp_path / "artifact", "--precision", "int8",
        "--calibration", bars_folder / "Alpha_5.csv", "--golden", bars_folder, "--cycles", 1,
    )  # fmt: skip
    model = load(tmp_path / "artifact")
    assert said["model_id"] == model.id
    graph = model.contract.graph
    assert (graph.precision, graph.cycles, graph.timesteps) == ("int8", 1, 2)
    assert len(graph.input_scales) == 10


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--precision", "int8"), BAD_INPUT, "int8: expected a checkpoint trained with quantisers"),
        (("--calibration", "bars"), BAD_INPUT, "calibration: expected for int8 of a checkpoint"),
        (
            ("--precision", "int8", "--calibration", "absent.csv"),
            BAD_INPUT,
            "absent.csv: expected a bars file or a folder of them, found nothing there",
        ),
        (("--cycles", "0"), BAD_INPUT, "cycles and timesteps: expected 1 or more of each and at"),
        (("--cycles", "1000"), BAD_INPUT, "at most 1000 steps in all, found 1000 x 2"),
        (("--precision", "fp8"), BAD_INPUT, "Invalid value for '--precision'"),
        (("--cycles", "many"), BAD_INPUT, "Invalid value for '--cycles'"),
        (("--max-megabytes", "0.01"), GATE_FAILED, "expected at most 0.01; export it as fp16"),
    ],
)
def test_an_export_that_is_refused_exits_with_its_code_and_leaves_nothing(
    options: tuple[str, ...], code: int, message: str, checkpoint_folder: Path, tmp_path: Path
) -> None:
    result = hrm("export", checkpoint_folder, "--out", tmp_path / "artifact", *options)
    assert result.exit_code == code
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_export")
def test_an_export_that_fails_its_gate_exits_with_1(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FLOAT_TOLERANCES, "value", 1e-12)
    result = hrm("export", checkpoint_folder, "--out", tmp_path / "artifact")
    assert result.exit_code == GATE_FAILED
    assert "Outputs beyond tolerance: value" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_parity_prints_every_output_of_every_stage(
    artifact_folder: Path, checkpoint_folder: Path, bars_folder: Path
) -> None:
    said = answer(
        "parity", artifact_folder, "--checkpoint", checkpoint_folder,
        "--data", bars_folder, "--windows", 64,
    )  # fmt: skip
    assert (said["passed"], said["windows"], said["unseen"]) == (True, 64, 64)
    one, hard = said["stages"]
    assert (one["stage"], one["reference"], one["windows"]) == ("artifact", "torch eager", 64)
    assert hard["stage"] == "artifact, hard windows"
    tolerances = load_contract(artifact_folder).tolerances
    for stage in said["stages"]:
        assert {"max_abs", "max_rel", "action_agreement", "flips", "passed"} < stage.keys()
        assert {n: output["tolerance"] for n, output in stage["outputs"].items()} == tolerances
        for output in stage["outputs"].values():
            assert 0 <= output["max_rel"] <= min(output["tolerance"], output["max_abs"])
        assert stage["max_rel"] == max(o["max_rel"] for o in stage["outputs"].values())
        assert (stage["action_agreement"], stage["flips"], stage["passed"]) == (1.0, [], True)
        assert sum(band["windows"] for band in stage["by_gap"]) == stage["windows"]
    assert [len(row) for row in one["growth"]["z_L"]] == [2, 2]
    assert hard["growth"] is None


def test_parity_with_another_checkpoint_fails_the_gate_and_says_where(
    artifact_folder: Path, trained: tuple[Path, Any], bars_folder: Path
) -> None:
    arguments = (
        "parity", artifact_folder, "--checkpoint", trained[0],
        "--data", bars_folder, "--windows", 64,
    )  # fmt: skip
    result = hrm(*arguments)
    assert result.exit_code == GATE_FAILED
    assert "FAILED" in result.stdout
    assert "hrm: artifact differs from torch eager over 64 windows; beyond near" in result.stderr
    assert "Nothing was written" not in result.stderr
    said = hrm(*arguments, "--json")
    assert said.exit_code == GATE_FAILED
    found = json.loads(said.stdout)
    assert found["passed"] is False
    stage = found["stages"][0]
    assert stage["passed"] is False
    assert len(stage["flips"]) > 10
    for flip in stage["flips"][:10]:
        line = f"window {flip['window']}: {flip['what']} differs, top-two gap {flip['gap']:.2e}"
        assert line in result.stdout
    assert f"and {len(stage['flips']) - 10:,} more" in result.stdout


def test_inspect_shows_the_contract(artifact_folder: Path) -> None:
    contract = load_contract(artifact_folder)
    result = hrm("inspect", artifact_folder)
    assert result.exit_code == DONE
    moment = datetime.fromtimestamp(contract.provenance.trained_until, UTC)
    for expected in (
        "Alpha, Beta",
        "2 cycles x 2 timesteps, fp32",
        "205",
        f"{moment:%Y-%m-%d %H:%M} UTC",
    ):
        assert expected in result.stdout
    told = answer("inspect", artifact_folder)
    assert load(artifact_folder, sha256=told.pop("model_id")).id == contract.id
    assert told == json.loads(json.dumps(asdict(contract)))


@pytest.mark.parametrize("width", [60, 80])
def test_inspect_shows_the_id_that_load_takes_on_a_line_of_its_own(
    width: int, artifact_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "out", Console(width=width, force_terminal=True, color_system=None))
    shown = hrm("inspect", artifact_folder).stdout
    (told,) = re.findall(r"^id +([0-9a-f]{64})$", shown, re.MULTILINE)
    assert load(artifact_folder, sha256=told).id == told
    checkpoint = load_contract(artifact_folder).provenance.checkpoint_sha256
    assert re.search(rf"^checkpoint +{checkpoint}$", shown, re.MULTILINE)
    assert load_contract(artifact_folder).digest not in shown
    assert "…" not in shown


@pytest.mark.usefixtures("wide")
def test_inspect_shows_the_ladder(artifact_folder: Path) -> None:
    shown = rows_of(hrm("inspect", artifact_folder).stdout)
    stages = shown[shown.index(LADDER) + 1 :]
    assert [(row[0], row[1], row[-1]) for row in stages] == [
        ("composed", "torch eager", "passed"),
        ("artifact", "torch eager", "passed"),
        ("artifact, hard windows", "torch eager", "passed"),
    ]


def predict(artifact: Path, bars: Path, *options: object) -> tuple[object, ...]:
    return (
        "predict", artifact, "--bars", bars, "--instrument", "Alpha", "--timeframe", "5", *options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "account"),
    [
        ((), Account.flat(1e6)),
        (("--capital", 2e5), Account.flat(2e5)),
        (
            ("--position", -3, "--entry-price", 99, "--unrealized-pnl", -7, "--distance-to-trail",
             0.01),
            Account(1e6, -3.0, 99.0, -7.0, True, 0.01),
        ),
    ],
    ids=["flat", "poor", "short"],
)  # fmt: skip
def test_predict_prints_the_decision_of_the_model(
    options: tuple[object, ...], account: Account, artifact_folder: Path, bars_folder: Path
) -> None:
    said = answer(*predict(artifact_folder, bars_folder / "Alpha_5.csv", *options))
    bars = read_csv(bars_folder / "Alpha_5.csv")
    decision = load(artifact_folder).decide(bars, account, instrument="Alpha", timeframe="5")
    assert said.pop("latency_ms") > 0
    assert said == {
        "action": decision.action.name,
        "action_id": int(decision.action),
        "quantity": decision.quantity,
        "value": decision.value,
        "probabilities": list(decision.probabilities),
        "q_values": list(decision.q_values),
        "segments": decision.segments,
        "degraded": False,
        "reason": "ok",
        "model_id": decision.model_id,
    }


def test_predict_shows_the_decision_in_a_table(artifact_folder: Path, bars_folder: Path) -> None:
    result = hrm(*predict(artifact_folder, bars_folder / "Alpha_5.csv"))
    assert result.exit_code == DONE
    assert "Alpha 5" in result.stdout
    assert "HOLD" in result.stdout
    assert "close" in result.stdout


def test_the_table_suits_a_terminal_without_block_characters(
    artifact_folder: Path, bars_folder: Path
) -> None:
    arguments = [str(a) for a in predict(artifact_folder, bars_folder / "Alpha_5.csv")]
    result = subprocess.run(
        [sys.executable, "-m", "hrm_cli", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert result.returncode == DONE, result.stderr
    assert b"##" in result.stdout


def test_a_degraded_decision_exits_with_1_and_shows_its_reason(
    artifact_folder: Path, bars_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(artifact_folder)
    monkeypatch.setattr(model, "decide", lambda *_, **__: hold(Reason.NON_FINITE, model.id))
    monkeypatch.setattr("hrm_runtime.load", lambda path: model)
    result = hrm(*predict(artifact_folder, bars_folder / "Alpha_5.csv"))
    assert result.exit_code == GATE_FAILED
    assert "non_finite" in result.stdout


def test_numbers_json_does_not_know_are_null(
    artifact_folder: Path, bars_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(artifact_folder)
    decision = replace(hold(Reason.OK, model.id), value=float("inf"))
    monkeypatch.setattr(model, "decide", lambda *_, **__: decision)
    monkeypatch.setattr("hrm_runtime.load", lambda path: model)
    assert answer(*predict(artifact_folder, bars_folder / "Alpha_5.csv"))["value"] is None


def damaged(artifact: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "damaged"
    shutil.copytree(artifact, copy)
    content = bytearray((copy / "model.onnx").read_bytes())
    content[1000] ^= 1
    (copy / "model.onnx").write_bytes(content)
    return copy


def test_a_damaged_artifact_exits_with_2_and_names_the_file(
    artifact_folder: Path, bars_folder: Path, tmp_path: Path
) -> None:
    result = hrm(
        *predict(damaged(artifact_folder, tmp_path), bars_folder / "Alpha_5.csv", "--json")
    )
    assert result.exit_code == BAD_INPUT
    assert result.stdout == ""
    assert "model.onnx: expected sha256" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "missing.yaml", "--data", "x", "--out", "y"), "a readable settings file"),
        (("export", "nowhere", "--out", "y"), "nowhere: expected a checkpoint folder"),
        (("inspect", "nowhere"), "nowhere: expected an artifact folder"),
        (("init",), "Missing argument"),
        (("predict", "nowhere", "--instrument", "a"), "Missing option '--data'"),
    ],
)  # fmt: skip
def test_bad_input_exits_with_2_and_says_what_was_expected(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = hrm(*arguments)
    assert result.exit_code == BAD_INPUT
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_instrument_exits_with_2_and_names_the_known(
    artifact_folder: Path, bars_folder: Path
) -> None:
    result = hrm(
        "predict", artifact_folder, "--bars", bars_folder / "Alpha_5.csv",
        "--instrument", "Gamma", "--timeframe", "5",
    )  # fmt: skip
    assert result.exit_code == BAD_INPUT
    assert "expected one of Alpha, Beta; found 'Gamma'" in result.stderr


def run_without(package: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`hrm` in a process in which `package` cannot be imported."""
    code = f"import sys; sys.modules[{package!r}] = None; from hrm_cli.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("torch", ("train", "s", "--data", "x", "--out", "y"),
         "hrm: train needs torch: pip install '.[train]'"),
        ("onnx", ("export", "checkpoint", "--out", "y"),
         "hrm: export needs onnx: pip install '.[export]'"),
        ("bokeh_sampledata", ("demo",),
         "hrm: demo needs bokeh_sampledata: pip install '.[demo]'"),
        ("typer", ("init", "x"), "hrm: the command line needs typer: pip install '.[cli]'"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    package: str, arguments: tuple[str, ...], message: str
) -> None:
    result = run_without(package, *arguments)
    assert result.stderr.strip() == message
    assert result.returncode in {GATE_FAILED, BAD_INPUT}


def test_a_missing_package_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bokeh_sampledata", None)
    monkeypatch.delitem(sys.modules, "hrm_cli.demo", raising=False)
    result = hrm("demo")
    assert result.exit_code == BAD_INPUT
    assert "demo needs bokeh_sampledata" in result.stderr


def test_a_module_that_is_missing_for_another_reason_is_not_explained_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hrm_runtime.artifact.golden", None)
    monkeypatch.setattr(
        "hrm_runtime.load_contract", lambda path: __import__("hrm_runtime.artifact.golden")
    )
    result = hrm("inspect", "x")
    assert isinstance(result.exception, ModuleNotFoundError)


def test_deciding_needs_no_training_library(artifact_folder: Path, bars_folder: Path) -> None:
    arguments = [str(a) for a in predict(artifact_folder, bars_folder / "Alpha_5.csv", "--json")]
    result = run_without("torch", *arguments)
    assert result.returncode == DONE, result.stderr
    assert json.loads(result.stdout)["reason"] == "ok"
