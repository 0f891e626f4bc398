"""What a person sees of a training under way: lines in a log, bars on a terminal."""

import io
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Task
from rich.text import Text

from hrm_cli import show
from hrm_train.checkpoint import Epoch
from hrm_train.trainer import Progress

LOSSES = {"policy": 1.0, "total": 1.25}


def epoch(number: int) -> Epoch:
    return Epoch(
        number=number, train_loss=2.0, validation_loss=1 + number / 8, accuracy=0.5, regret=0.25,
        segments=1.5,
    )  # fmt: skip


def progress(samples: int, epochs: int = 0, fold: int = 1, folds: int = 1) -> Progress:
    return Progress(
        step=samples // 10,
        samples=samples,
        of=1000,
        losses=LOSSES,
        segments=math.nan,
        epochs=tuple(epoch(number) for number in range(1, epochs + 1)),
        fold=fold,
        folds=folds,
    )


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[float, Progress]]], list[str]]:
    """The lines that are said of progress told at given seconds."""
    now = [0.0]
    written = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=written, width=80))
    monkeypatch.setattr(show.time, "monotonic", lambda: now[0])

    def said(told: list[tuple[float, Progress]]) -> list[str]:
        now[0] = 0.0
        with show.training() as on_progress:
            for when, one in told:
                now[0] = when
                on_progress(one)
        return written.getvalue().splitlines()

    return said


Log = Callable[[list[tuple[float, Progress]]], list[str]]


def test_a_log_has_a_line_every_half_minute(log: Log) -> None:
    told = [(10.0 + 5 * step, progress(100 + 10 * step)) for step in range(14)]
    assert log(told) == [
        # ten samples every five seconds; 30 s after the start, then after the line before
        "14%, policy 1.000, total 1.250, 2 samples/s, 7 min left",
        "20%, policy 1.000, total 1.250, 2 samples/s, 7 min left",
    ]


def test_a_log_has_a_line_after_every_epoch_however_long_it_is(log: Log) -> None:
    told = [
        (1.0, progress(100)),
        (2.0, progress(500)),
        (3.0, progress(500, epochs=1)),
        (4.0, progress(900, epochs=1)),
        (5.0, progress(1010, epochs=1)),
        (6.0, progress(1010, epochs=2)),
    ]
    assert log(told) == [
        "50%, policy 1.000, total 1.250; epoch 1: 1.125, 200 samples/s, 0 min left",
        "100%, policy 1.000, total 1.250; epoch 2: 1.250, 182 samples/s, 0 min left",
    ]


def test_each_fold_is_named_and_timed_by_itself(log: Log) -> None:
    told = [
        (1.0, progress(100, fold=1, folds=2)),
        (101.0, progress(1000, epochs=1, fold=1, folds=2)),
        (102.0, progress(100, fold=2, folds=2)),
        (112.0, progress(600, epochs=1, fold=2, folds=2)),
    ]
    assert log(told) == [
        "fold 1 of 2, 100%, policy 1.000, total 1.250; epoch 1: 1.125, 9 samples/s, 0 min left",
        "fold 2 of 2, 60%, policy 1.000, total 1.250; epoch 1: 1.125, 50 samples/s, 0 min left",
    ]


def test_a_speed_that_is_not_known_is_not_told(log: Log) -> None:
    told = [(1.0, progress(1000)), (2.0, progress(1000, epochs=1))]
    assert log(told) == ["100%, policy 1.000, total 1.250; epoch 1: 1.125"]


def test_what_was_resumed_says_nothing_of_what_was_done_before(log: Log) -> None:
    told = [(1.0, progress(500, epochs=1)), (11.0, progress(600, epochs=2))]
    assert log(told) == ["60%, policy 1.000, total 1.250; epoch 2: 1.250, 10 samples/s, 1 min left"]


@pytest.mark.parametrize(
    ("folds", "names"), [(1, ["training"]), (2, ["fold 1 of 2", "fold 2 of 2"])]
)
def test_a_terminal_has_a_bar_for_each_fold_and_no_lines(
    folds: int, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(show, "err", terminal)
    with show.training() as on_progress:
        for fold in range(1, folds + 1):
            on_progress(progress(100, fold=fold, folds=folds))
            on_progress(progress(1010, epochs=1, fold=fold, folds=folds))
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", written.getvalue()).splitlines()
    for name in names:
        shown = [line for line in last if line.strip().startswith(name)]
        assert "1000/1000" in shown[-1]  # never more than all
        assert "policy 1.000, total 1.250; epoch 1: 1.125" in shown[-1]
    assert "samples/s, " not in written.getvalue()


@pytest.mark.parametrize(("speed", "shown"), [(None, ""), (1234.5, "1,234 samples/s")])
def test_throughput_is_shown_once_it_is_known(speed: float | None, shown: str) -> None:
    class Known(Task):
        @property
        def speed(self) -> float | None:
            return speed

    task: Any = Known(0, "", 10, 0, _get_time=lambda: 0.0)  # type: ignore[arg-type]
    assert show.Throughput().render(task) == Text(shown)


def test_silence_says_nothing_on_either_stream(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for console in (show.out, show.err):
        monkeypatch.setattr(console, "quiet", False)
    show.silence()
    show.note("done")
    show.epochs([epoch(1)], 1)
    assert capsys.readouterr() == ("", "")
