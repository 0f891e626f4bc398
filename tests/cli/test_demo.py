"""The demo's bars are well made, and the whole of it runs."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import hrm
from synthetic import random_bars

import hrm_cli.demo
from hrm_cli.demo import (
    RELEASED,
    WEEK,
    decide_without_torch,
    demo_bars,
    next_commands,
    weekly,
)
from hrm_runtime import Account, Bars, InferenceFailed, load, read_csv
from hrm_runtime.market.csv_files import write_csv

DAY = 86_400
MONDAY = 1_704_067_200  # 2024-01-01


def test_weekly_bars_hold_their_days() -> None:
    days = np.array([0, 1, 2, 4, 7, 10, 14])
    daily = Bars(
        MONDAY + DAY * days,
        open=[1, 2, 3, 4, 5, 6, 7],
        high=[9, 8, 12, 8, 7, 9, 8],
        low=[1, 1, 2, 0.5, 4, 5, 6],
        close=[2, 3, 4, 5, 6, 7, 8],
    )
    found = weekly(daily)
    assert found.datetime.tolist() == [MONDAY, MONDAY + WEEK, MONDAY + 2 * WEEK]
    assert found.open.tolist() == [1, 5, 7]
    assert found.high.tolist() == [12, 9, 8]
    assert found.low.tolist() == [0.5, 4, 6]
    assert found.close.tolist() == [5, 7, 8]


def test_the_bundled_bars_are_adjusted_for_splits() -> None:
    found = demo_bars()
    assert len(found) == 10
    returns = np.diff(np.log(found["AAPL", "D"].close))
    assert np.abs(returns).max() < 0.8  # the split of 2005 alone would be log 2 = 0.69 on top
    two_for_one = np.searchsorted(found["AAPL", "D"].datetime, 1_109_548_800)  # 2005-02-28
    assert abs(returns[two_for_one - 1]) < 0.1


def test_the_demo_runs_from_bars_to_decisions(demo_run: tuple[Path, Any], released: Path) -> None:
    made, result = demo_run
    assert result.exit_code == 0, result.output
    assert re.search(r"artifact +│ torch eager +│ 40 +│ .* │ passed", result.stdout)
    assert f"id {load(made / 'artifact').id}" in result.stderr.splitlines()
    shown = re.findall(r"([A-Z]+ [DW]) +│ ([A-Z_]+[^│]*?) *│", result.stdout)
    assert shown == [  # FB is too short to decide on
        (f"{name} {timeframe}", decided(artifact, made / "bars", name, timeframe))
        for artifact, name, timeframe in (
            (released, "AAPL", "D"),
            *((made / "artifact", name, frame) for name in ("AAPL", "IBM") for frame in "DW"),
        )
    ]
    said = "".join(result.output.splitlines())
    assert f"2  Decide with {released}" in said
    assert said.index("2  Decide with") < said.index("AAPL D") < said.index("3  Train")
    assert "Lots and probabilities vary from machine to machine" in said
    for command in next_commands(made):
        assert command in result.stderr
    again = hrm("demo", "--out", made)
    assert again.exit_code == 2
    assert "expected a new folder" in again.stderr


def decided(artifact: Path, bars: Path, name: str, timeframe: str) -> str:
    closed = read_csv(bars / f"{name}_{timeframe}.csv")
    flat = Account.flat(1_000_000)
    return load(artifact).decide(closed, flat, instrument=name, timeframe=timeframe).order


def test_a_demo_without_a_model_from_elsewhere_has_no_second_step(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(_settings: object, _data: Path, _checkpoint: Path, artifact: Path) -> bool:
        shutil.copytree(released, artifact)
        return True

    series = {("AAPL", "D"): random_bars(400, 1, DAY), ("FB", "W"): random_bars(100, 2, WEEK)}
    monkeypatch.setattr(hrm_cli.demo, "demo_bars", lambda: series)
    monkeypatch.setattr(hrm_cli.demo, "_train_and_export", trained)
    monkeypatch.chdir(tmp_path)  # where there is no released one
    result = hrm("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    steps = re.findall(r"^(\d)  ", result.stderr, re.MULTILINE)
    assert steps == ["1", "6"]
    assert result.stdout.count("AAPL D") == 1


def test_a_decision_that_fails_is_not_shown(tmp_path: Path) -> None:
    write_csv(random_bars(50), tmp_path / "Alpha_5.csv")
    with pytest.raises(InferenceFailed, match="hrm predict decided nothing"):
        decide_without_torch(tmp_path / "nowhere", tmp_path / "Alpha_5.csv")


def test_the_next_commands_call_hrm_as_the_demo_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/hrm", "demo"])
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", ".venv/bin/hrm", "demo"])
    commands = [shlex.split(command) for command in next_commands(tmp_path / "the demo")]
    assert [words[0] for words in commands] == [".venv/bin/hrm"] * 3
    assert [words[1] for words in commands] == ["backtest", "trace", "inspect"]
    assert {words[2] for words in commands} == {str(tmp_path / "the demo" / "artifact")}


@pytest.mark.parametrize("there", [True, False])
def test_a_clone_s_released_model_decides_first(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if there:
        RELEASED.mkdir(parents=True)
    asked: list[Path | None] = []
    monkeypatch.setattr(hrm_cli.demo, "run", lambda _, model: asked.append(model) is None)
    assert hrm("demo").exit_code == 0
    assert hrm("demo", "--artifact", "other").exit_code == 0
    assert asked == [RELEASED if there else None, Path("other")]


def test_a_demo_without_parity_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hrm_cli.demo, "run", lambda folder, model: False)
    assert hrm("demo").exit_code == 1
