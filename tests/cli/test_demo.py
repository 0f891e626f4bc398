"""The demo's bars are well made, and the whole of it runs."""

import re
from pathlib import Path

import numpy as np
import pytest
from synthetic import SMALL, random_bars
from typer.testing import CliRunner

import hrm_cli.demo
from hrm_cli.app import app
from hrm_cli.demo import WEEK, decide_without_torch, demo_bars, weekly
from hrm_runtime import Bars, InferenceFailed
from hrm_runtime.bars import write_csv

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
    returns = np.diff(np.log(found["AAPL_D"].close))
    assert np.abs(returns).max() < 0.8  # the split of 2005 alone would be log 2 = 0.69 on top
    two_for_one = np.searchsorted(found["AAPL_D"].datetime, 1_109_548_800)  # 2005-02-28
    assert abs(returns[two_for_one - 1]) < 0.1


def test_the_demo_runs_from_bars_to_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = {"AAPL_D": random_bars(400, 1, DAY), "FB_D": random_bars(100, 2, DAY)}
    monkeypatch.setattr(hrm_cli.demo, "demo_bars", lambda: series)
    monkeypatch.setattr(hrm_cli.demo, "PRESETS", {"tiny": SMALL})
    monkeypatch.setattr(hrm_cli.demo, "PARITY_WINDOWS", 40)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    assert re.search(r"artifact +│ torch eager +│ 40 +│ .* │ passed", result.stdout)
    assert "AAPL D" in result.stdout
    assert "FB D" not in result.stdout  # too short to decide on
    artifact = tmp_path / "demo" / "artifact"  # as if it were one that was trained elsewhere
    options = ["--out", str(tmp_path / "other"), "--model", str(artifact)]
    other = CliRunner().invoke(app, ["demo", *options])
    assert other.exit_code == 0, other.output
    trained, elsewhere = re.findall(r"AAPL D +│ ([A-Z_]+[^│]*)│", other.stdout)
    assert trained == elsewhere  # from the same seed
    assert f"6  Decide with {artifact}" in "".join(other.output.splitlines())
    again = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert again.exit_code == 2
    assert "expected a new folder" in again.stderr


def test_a_decision_that_fails_is_not_shown(tmp_path: Path) -> None:
    write_csv(random_bars(50), tmp_path / "Alpha_5.csv")
    with pytest.raises(InferenceFailed, match="hrm predict decided nothing"):
        decide_without_torch(tmp_path / "nowhere", tmp_path / "Alpha_5.csv")


def test_a_demo_without_parity_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hrm_cli.demo, "run", lambda folder, model: False)
    assert CliRunner().invoke(app, ["demo"]).exit_code == 1
