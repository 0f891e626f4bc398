"""The example trades on paper what the model decides, says what it held, and replays itself."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from live import ON, SAFETY_S, Clock
from synthetic import random_bars

from hrm_runtime import Bars, LiveEngine, LiveSettings, Model
from hrm_runtime.backtest.book import Book
from hrm_runtime.backtest.walk import backtest
from hrm_runtime.live.replay import Difference, Replayed
from hrm_runtime.market.csv_files import write_csv

SCRIPT = Path(__file__).parents[2] / "examples" / "paper_trading.py"
DAY, MONDAY = 86_400, 1_704_067_200  # 2024-01-01
HOLIDAY = "2024-11-15"


def daily_bars() -> Bars:
    """Of weekdays but one, stamped at midnight UTC; the last is 2024-11-22."""
    weekdays = np.array([day for day in range(327) if day % 7 < 5])
    stamps = MONDAY + DAY * weekdays
    kept = stamps != int(np.datetime64(HOLIDAY, "s").astype(int))
    walk = random_bars(int(kept.sum()), seed=5)
    return replace(walk, datetime=stamps[kept])


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    """The example, imported as a module."""
    spec = importlib.util.spec_from_file_location("paper_trading", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(copy_artifact: ArtifactCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it runs: with an artifact that knows every name, and daily bars."""
    copy_artifact.reseal(allow_unknown_instrument=True, allow_unknown_timeframe=True)
    write_csv(daily_bars(), tmp_path / "ACME_D.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(paper: ModuleType, patch: pytest.MonkeyPatch, *arguments: str) -> int:
    given = ("--artifact", "artifact", "--bars", "ACME_D.csv", "--bars-count", "20", *arguments)
    patch.setattr(sys, "argv", [str(SCRIPT), *given])
    code: int = paper.main()
    return code


def test_it_trades_what_a_backtest_trades(paper: ModuleType, model: Model) -> None:
    bars, needed = random_bars(360, seed=3), model.contract.bars_needed
    book = Book(paper.CAPITAL, model.contract.instrument("Alpha"), model.contract.trading)
    clock = Clock(float(bars.datetime[needed - 1]))
    with LiveEngine(model, LiveSettings(clock=clock, deadline=SAFETY_S)) as engine:
        decisions = paper.trade(engine, clock, book, bars, needed - 1, ON)
    expected = backtest(model, bars, **ON, since=0)
    assert tuple(book.trades) == expected.trades
    assert len(book.trades) > 10
    assert book.cash == expected.equity[-1]
    assert not any(one.degraded for one in decisions)
    assert len(decisions) == 360 - needed + 1


def test_it_says_what_was_decided_and_what_was_held_and_why(
    paper: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run(paper, monkeypatch) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    said = dict(lines[1:])
    assert lines[0][1].startswith("D, bars from 2024-10-25 00:00 UTC to 2024-11-22 00:00 UTC, ")
    assert list(said) == ["decided", "held", "traded", "health", "replayed"]
    assert said["decided"].startswith("19: ")
    assert said["held"] == (
        "1, gap: bars: expected the one that follows 2024-11-14 00:00 UTC, found 2024-11-18 00:00 "
        "UTC; the next one decides again, or feed what was missed"
    )
    assert said["health"].startswith("serving, ")
    assert said["replayed"] == "20 made again: no difference"


def test_a_holiday_that_it_is_told_is_no_gap(
    paper: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run(paper, monkeypatch, "--holidays", HOLIDAY) == 0
    said = capsys.readouterr().out
    assert "\ndecided   20: " in said
    assert "held" not in said


def test_a_replay_that_differs_exits_with_1(
    paper: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    difference = Difference(
        file="a.sqlite", event=8, sequence=3, instrument="ACME", timeframe="D", datetime=0,
        what="quantity", recorded="7.0", recomputed="3.0",
    )  # fmt: skip
    found = Replayed(recomputed=2, difference=difference)
    monkeypatch.setattr(paper, "replay", lambda journal, models: found)
    assert run(paper, monkeypatch) == 1
    assert "replayed  2 made again: quantity differs: recorded 7.0, found again 3.0" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--journal", "artifact"), "artifact: expected a new folder; remove it, or give"),
        (("--bars-count", "0"), "--bars-count: expected at least 1, found 0"),
        (("--bars", "few_D.csv"), "few_D.csv: expected at least 205 bars, found 7"),
        (("--bars", "none_D.csv"), "none_D.csv: expected a readable CSV file"),
        (("--artifact", "nowhere"), "nowhere: expected an artifact folder"),
        (("--sessions", "always"), "hours: expected a session such as 09:15-15:30"),
    ],
)
def test_what_it_cannot_use_exits_with_2_and_leaves_no_journal(
    arguments: tuple[str, ...],
    message: str,
    paper: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    write_csv(random_bars(7, seconds=DAY), folder / "few_D.csv")
    with pytest.raises(SystemExit) as exited:
        run(paper, monkeypatch, *arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "paper-journal").exists()
