"""What a person sees of a training under way: lines in a log, bars on a terminal."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Task
from rich.text import Text
from terminal import Drawn, Table

from hrm_cli.show import console, training
from hrm_train.learning.checkpoint import Epoch
from hrm_train.learning.epochs import Progress

LOSSES = {"policy": 1.0, "total": 1.25}
ALL_LOSSES = {"policy": 1.0, "value": 1.5, "quantity": 2.125, "halting": 0.75, "total": 5.375}


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
    monkeypatch.setattr(console, "err", Console(file=written, width=80))
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])

    def said(told: list[tuple[float, Progress]]) -> list[str]:
        now[0] = 0.0
        with training.training() as on_progress:
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
    monkeypatch.setattr(console, "err", terminal)
    with training.training() as on_progress:
        for fold in range(1, folds + 1):
            on_progress(progress(100, fold=fold, folds=folds))
            on_progress(progress(1010, epochs=1, fold=fold, folds=folds))
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", written.getvalue()).splitlines()
    for name in names:
        shown = [line for line in last if line.strip().startswith(name)]
        assert "1000/1000" in shown[-1]  # never more than all
        assert "total 1.250, epoch 1: 1.125, policy 1.000" in shown[-1]
    assert "samples/s, " not in written.getvalue()


@pytest.mark.parametrize("of", [26_880, 12_345_680])
@pytest.mark.parametrize("folds", [1, 12])
@pytest.mark.parametrize(
    ("width", "losses"),
    [
        (60, ""),
        (79, ""),
        (80, "total 5.375"),
        (100, "total 5.375, epoch 3: 1.375"),
        (
            160,
            "total 5.375, epoch 3: 1.375, policy 1.000, value 1.500, quantity 2.125, halting 0.750",
        ),
    ],
)
def test_a_terminal_shows_bar_count_rate_and_time_and_losses_where_there_is_room(
    width: int,
    losses: str,
    folds: int,
    of: int,
    drawn: Drawn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    timed = partial(training.Progress, get_time=lambda: now[0])
    monkeypatch.setattr(training, "Progress", timed)

    def train() -> None:
        with training.training() as on_progress:
            for step in range(1, 10):
                now[0] += 4.0
                told = progress(step, 3, folds, folds)
                on_progress(replace(told, samples=step * of // 20, of=of, losses=ALL_LOSSES))

    name = "training" if folds == 1 else "fold 12 of 12"
    rate = f"{of / 80:,.0f}{'/s' if width < 80 else ' samples/s'}"
    assert re.fullmatch(
        rf"{name} [━╸╺]{{8,}} +{9 * of // 20}/{of} {rate} 0:00:44 ?{losses}",
        drawn(width, train)[-1],
    )


@pytest.mark.parametrize("width", [60, 80])
def test_the_epochs_of_a_training_are_shown_whole(width: int, whole: Table) -> None:
    names, line = whole(width, training.epochs, [epoch(100)], 100)
    assert names == ["epoch", "loss", "validation", "best action", "regret (ATR)", "segments"]
    assert line == ["100", "2.0000", "13.5000", "50.0%", "0.250", "1.50"]


@pytest.mark.parametrize(
    ("width", "speed", "shown"),
    [(80, None, ""), (80, 1234.5, "1,234 samples/s"), (79, None, ""), (79, 1234.5, "1,234/s")],
)
def test_throughput_is_shown_once_it_is_known(
    width: int, speed: float | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "err", Console(width=width))

    class Known(Task):
        @property
        def speed(self) -> float | None:
            return speed

    task: Any = Known(0, "", 10, 0, _get_time=lambda: 0.0)  # type: ignore[arg-type]
    assert training.Throughput().render(task) == Text(shown)
