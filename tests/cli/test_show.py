"""What a person sees of a training under way: lines in a log, bars on a terminal."""

import io
import math
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Task
from rich.text import Text
from synthetic import random_bars

from hrm_cli import show
from hrm_runtime import Action, Decision, Reason
from hrm_runtime.artifact.contract import GapBand, OutputParity, Stage
from hrm_runtime.artifact.decision import hold
from hrm_runtime.market.stamps import moment
from hrm_train.data.prepared import Series
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
        assert "total 1.250, epoch 1: 1.125, policy 1.000" in shown[-1]
    assert "samples/s, " not in written.getvalue()


Drawn = Callable[..., list[str]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The last lines of progress that a terminal of some width shows, without control codes."""

    def shown(width: int, show_it: Callable[[], None]) -> list[str]:
        written = io.StringIO()
        terminal = Console(file=written, force_terminal=True, width=width, color_system="standard")
        monkeypatch.setattr(show, "err", terminal)
        show_it()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", plain).splitlines()
        assert max(map(len, lines)) <= width
        return [line.rstrip() for line in lines if line.strip()]

    return shown


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
    timed = partial(show.Progress, get_time=lambda: now[0])
    monkeypatch.setattr(show, "Progress", timed)

    def train() -> None:
        with show.training() as on_progress:
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
def test_other_progress_keeps_its_words_and_numbers(width: int, drawn: Drawn) -> None:
    def tell() -> None:
        with show.stages() as on_progress:
            on_progress("making plain torch.onnx.export, opset 23", 10, 12)

    def judge() -> None:
        with show.advancing("judging") as on_progress:
            on_progress(1_000_000, 2_000_000)

    assert re.fullmatch(r"judging [━╸╺]{20,} +1000000/2000000 -:--:--", drawn(width, judge)[-1])
    assert re.fullmatch(
        r"making plain torch.onnx.export, opset 23 [━╸╺]{10,} +10/12", drawn(width, tell)[-1]
    )


def test_a_heading_is_shown_as_it_is_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=written, width=60))
    text = f"6  Decide with {'/long' * 20}/[bold]artifact"
    show.heading(text)
    assert written.getvalue() == f"\n{text}\n"


# tables

WIDTHS = pytest.mark.parametrize("width", [60, 80])
Table = Callable[..., list[list[str]]]


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Table:
    """The words of each line of what is shown, cell by cell, where nothing is cut."""

    def shown(width: int, what: Callable[..., None], *arguments: object) -> list[list[str]]:
        written = io.StringIO()
        monkeypatch.setattr(
            show, "out", Console(file=written, force_terminal=True, width=width, color_system=None)
        )
        what(*arguments)
        lines = written.getvalue().splitlines()
        assert "…" not in written.getvalue()
        framed = [line for line in lines if line[:1] in {"│", "┃"}]
        assert max(map(len, framed)) <= width
        return [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in framed]

    return shown


@WIDTHS
def test_the_data_of_a_training_is_shown_whole(width: int, cells: Table) -> None:
    long = Series(
        instrument="Bank_Nifty_Futures",
        timeframe="15",
        bars=1_234_567,
        duplicates=1000,
        disordered=1000,
        samples=0,
        skipped="50 bars, 212 needed",
    )
    lines = cells(width, show.series, [replace(long, samples=123_456, skipped=None), long])
    assert lines[0] == ["series", "bars", "duplicates", "out of order", "samples"]
    table = list(zip(*lines[1:], strict=True))
    assert "".join(table[0]) == "Bank_Nifty_Futures_15" * 2
    assert [cell for cell in table[1] if cell] == ["1,234,567", "1,234,567"]
    assert [cell for cell in table[2] if cell] == ["1000", "1000"]
    assert " ".join(table[4]).split() == ["123,456", "skipped:", "50", "bars,", "212", "needed"]


@WIDTHS
def test_the_epochs_of_a_training_are_shown_whole(width: int, cells: Table) -> None:
    names, line = cells(width, show.epochs, [epoch(100)], 100)
    assert names == ["epoch", "loss", "validation", "best action", "regret (ATR)", "segments"]
    assert line == ["100", "2.0000", "13.5000", "50.0%", "0.250", "1.50"]


@WIDTHS
def test_a_ladder_is_shown_whole(width: int, cells: Table) -> None:
    output = OutputParity(max_abs=1.0, max_rel=0.1, tolerance=None, beyond=0)
    stage = Stage(
        stage="artifact, hard windows",
        reference="torch eager, float16 weights",
        gated=True,
        allowance=0.0,
        windows=123_456,
        max_abs=1.0,
        max_rel=0.125,
        outputs={"value": output},
        action_agreement=0.99875,
        by_gap=(GapBand(above=1e-4, windows=123_456, same_action=0, same_decision=0),),
        flips=(),
        growth=None,
        passed=False,
    )
    names, more, *lines = cells(width, show.parity, [stage])
    assert [*zip(names, more, strict=True)][2:] == [
        ("", "windows"), ("largest", "difference"), ("decisions", "equal"), ("", ""),
    ]  # fmt: skip
    assert lines[0][2:] == ["123,456", "1.2e-01", "99.88%", "FAILED"]
    table = list(zip(*lines, strict=True))
    assert " ".join(table[0]).split() == stage.stage.split()
    assert " ".join(table[1]).split() == stage.reference.split()


def decided(action: Action, quantity: float, reason: Reason = Reason.OK) -> Decision:
    return Decision(
        action=action,
        quantity=quantity,
        value=-123.456,
        probabilities=(0.0, 0.75, 0.0, 0.0, 0.25),
        q_values=(0.5, 0.25),
        segments=1,
        reason=reason,
        model_id="abc",
        latency_ms=123.4,
    )


@WIDTHS
@pytest.mark.parametrize(
    ("decision", "order"),
    [
        (decided(Action.SELL_SHORT, 12_345.0), "SELL_SHORT 12,345 lots"),
        (decided(Action.CLOSE_SHORT, 1.0), "CLOSE_SHORT 1 lot"),
        (decided(Action.HOLD, 1.0), "HOLD"),
    ],
    ids=["many", "one", "none"],
)
def test_a_decision_is_shown_whole(
    decision: Decision, order: str, width: int, cells: Table
) -> None:
    bars = random_bars(3)
    shown = show.decisions, [("Bank_Nifty_Futures", "15", bars, decision)]
    names, *lines = cells(width, *shown)
    assert names == ["at the close of", "decision", "probabilities"]
    where, what, shares = (" ".join(filter(None, column)) for column in zip(*lines, strict=True))
    close = f"{bars.close[-1]:,.2f}"
    assert where == f"Bank_Nifty_Futures 15 {moment(int(bars.datetime[-1]))} close {close}"
    assert what == f"{order} value -123.46 ATR ok, 123.4 ms"
    sell, wait = re.fullmatch(r"SELL_SHORT +75% ?(█*) HOLD +25% ?(█*)", shares).groups()  # type: ignore[union-attr]
    assert abs(len(sell) - 3 * len(wait)) <= 1
    assert len(sell) == 9 or width == 60


def test_the_words_of_a_decision_are_explained_in_two_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(show, "out", Console(file=written, width=80))
    show.decisions([("Alpha", "5", random_bars(3), hold(Reason.STALE, "abc"))])
    *_, first, second = written.getvalue().splitlines()
    assert first == "A lot is the unit an instrument trades in. Value is the best return that the "
    assert second == "network expects, in ATR: the average range of a bar, here of the last 14."


@pytest.mark.parametrize(
    ("width", "speed", "shown"),
    [(80, None, ""), (80, 1234.5, "1,234 samples/s"), (79, None, ""), (79, 1234.5, "1,234/s")],
)
def test_throughput_is_shown_once_it_is_known(
    width: int, speed: float | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "err", Console(width=width))

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


def test_a_thread_that_cannot_write_says_nothing_and_another_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: told.append(arguments[1]))
    before = threading.excepthook
    other = RuntimeError("other")
    with show.failing_threads_quiet():
        for error in (OSError(28, "full"), other):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()
    assert told == [other]
    assert threading.excepthook is before


def fail(error: Exception) -> None:
    raise error
