"""Event files read back: every number under its name, at its step, and nothing twice."""

import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch.utils.tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrm_train import train
from hrm_train.errors import ReportRefused, TrainingDiverged
from hrm_train.learning import tensorboard as module
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.epochs import Progress
from hrm_train.learning.tensorboard import INTERVAL, tensorboard
from hrm_train.settings import Settings

LOSSES = {"policy": 1.5, "value": 0.25, "quantity": 0.5, "halting": 0.125, "total": 2.375}
"""Exact in float32, which is what an event holds."""


def progress(step: int, **changes: Any) -> Progress:
    made = Progress(
        step=step, samples=64 * step, of=640, losses=LOSSES, segments=math.nan, epochs=()
    )
    return replace(made, **changes)


def epoch(number: int, **changes: float) -> Epoch:
    made = Epoch(
        number=number,
        train_loss=2.0,
        validation_loss=1.0 + number,
        accuracy=0.5,
        regret=0.25 * number,
        segments=1.5,
    )
    return replace(made, **changes)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) by name, of all event files in `folder`."""
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return {
        name: [(event.step, event.value) for event in read.Scalars(name)]
        for name in read.Tags()["scalars"]
    }


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that throughput is measured with: its first entry is the time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def test_every_loss_is_written_at_its_step(tmp_path: Path) -> None:
    other = {name: 2 * loss for name, loss in LOSSES.items()}
    with tensorboard(tmp_path) as report:
        report(progress(1))
        report(progress(2, losses=other))
    assert scalars(tmp_path) == {
        f"loss/{name}": [(1, loss), (2, other[name])] for name, loss in LOSSES.items()
    }


def test_segments_are_written_where_samples_have_halted(tmp_path: Path) -> None:
    with tensorboard(tmp_path) as report:
        for step, segments in enumerate((math.nan, 1.5, math.nan, 2.0), start=1):
            report(progress(step, segments=segments))
    assert scalars(tmp_path)["segments/training"] == [(2, 1.5), (4, 2.0)]


def test_throughput_is_what_was_done_since_it_was_last_measured(
    tmp_path: Path, clock: list[float]
) -> None:
    with tensorboard(tmp_path) as report:
        report(progress(11, samples=704))  # resumed: what came before took no time here
        clock[0] += 0.75 * INTERVAL
        report(progress(12, samples=768))
        clock[0] += 1.25 * INTERVAL
        report(progress(13, samples=960))
        clock[0] += INTERVAL
        report(progress(14, samples=960))
    found = scalars(tmp_path)
    assert found["throughput/samples_per_second"] == [(13, 256 / 2), (14, 0.0)]
    assert found["throughput/steps_per_second"] == [(13, 2 / 2), (14, 1.0)]


def test_every_epoch_is_written_once_by_its_number(tmp_path: Path) -> None:
    done = (epoch(1), epoch(2), epoch(3))
    with tensorboard(tmp_path) as report:
        for step, ended in enumerate((0, 0, 1, 1, 3), start=1):
            report(progress(step, epochs=done[:ended]))
    found = {name: s for name, s in scalars(tmp_path).items() if name.startswith("epoch/")}
    assert found == {
        "epoch/train_loss": [(1, 2.0), (2, 2.0), (3, 2.0)],
        "epoch/validation_loss": [(1, 2.0), (2, 3.0), (3, 4.0)],
        "epoch/accuracy": [(1, 0.5), (2, 0.5), (3, 0.5)],
        "epoch/regret": [(1, 0.25), (2, 0.5), (3, 0.75)],
        "epoch/segments": [(1, 1.5), (2, 1.5), (3, 1.5)],
    }


def test_a_step_that_is_reported_again_after_its_epoch_adds_the_epoch_only(tmp_path: Path) -> None:
    with tensorboard(tmp_path) as report:
        report(progress(1))
        report(progress(1, losses=dict.fromkeys(LOSSES, 9.0), epochs=(epoch(1),)))
    found = scalars(tmp_path)
    assert found["loss/total"] == [(1, LOSSES["total"])]
    assert found["epoch/validation_loss"] == [(1, 2.0)]


def test_folds_are_runs_of_their_own(tmp_path: Path) -> None:
    with tensorboard(tmp_path) as report:
        for fold in (1, 2):
            losses = {"total": 0.5 * fold}
            report(progress(1, losses=losses, fold=fold, folds=2))
            report(progress(2, losses=losses, fold=fold, folds=2, epochs=(epoch(1),)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold-1", "fold-2"]
    for fold in (1, 2):
        found = scalars(tmp_path / f"fold-{fold}")
        assert found["loss/total"] == [(1, 0.5 * fold), (2, 0.5 * fold)]
        assert found["epoch/validation_loss"] == [(1, 2.0)]


def test_what_was_reported_before_a_failure_is_kept(tmp_path: Path) -> None:
    def fail() -> None:
        with tensorboard(tmp_path) as report:
            report(progress(1))
            raise TrainingDiverged("step 2")

    with pytest.raises(TrainingDiverged, match="step 2"):
        fail()
    assert scalars(tmp_path)["loss/total"] == [(1, LOSSES["total"])]


def test_without_a_report_nothing_is_written(tmp_path: Path) -> None:
    with tensorboard(tmp_path / "new" / "runs"):
        pass
    assert list((tmp_path / "new" / "runs").iterdir()) == []


def test_a_training_run_is_written_from_its_first_step_on(
    bars_folder: Path, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings({"training.epochs": 2})
    with tensorboard(tmp_path / "runs") as report:
        made = train(settings, [bars_folder], tmp_path / "out", report)
    found = scalars(tmp_path / "runs")
    steps = [step for step, _ in found["loss/total"]]
    assert steps == list(range(1, len(steps) + 1))
    for name, expected in vars(made.description.epochs[0]).items():
        if name != "number":
            assert found[f"epoch/{name}"][0] == (1, pytest.approx(expected))


# what is refused before any work


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = "reporting to TensorBoard needs tensorboard: pip install tensorboard"
    with pytest.raises(ReportRefused, match=f"^{re.escape(message)}$"), tensorboard(tmp_path):
        pytest.fail("training has started")


@pytest.mark.parametrize("place", ["file", "file/runs"])
def test_a_folder_that_cannot_be_written_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    message = f"{re.escape(str(tmp_path / place))}: expected a folder to write events to: "
    with pytest.raises(ReportRefused, match=message), tensorboard(tmp_path / place):
        pytest.fail("training has started")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("where", ["add_scalar", "close"])
def test_a_disk_that_fills_up_while_events_are_written_ends_the_report(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.utils.tensorboard.SummaryWriter, where, full)
    message = r"expected to write events there: \[Errno 28\] No space left .*; make room, or go on"
    with pytest.raises(ReportRefused, match=message), tensorboard(tmp_path) as report:
        report(progress(1))
