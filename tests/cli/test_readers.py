"""The command line reads Parquet where polars is, and says what to install where it is not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars
import pytest
from typer.testing import CliRunner

from hrm_cli.app import app
from hrm_cli.readers import readers
from hrm_runtime import read_csv
from hrm_runtime.market import series
from hrm_train.data import parquet

DONE, BAD_INPUT = 0, 2


@pytest.fixture
def parquet_file(bars_folder: Path, tmp_path: Path) -> Path:
    """Alpha_5 of `bars_folder`, as Parquet."""
    bars = read_csv(bars_folder / "Alpha_5.csv")
    path = tmp_path / "Alpha_5.parquet"
    names = ("datetime", "open", "high", "low", "close")
    polars.DataFrame({name: getattr(bars, name) for name in names}).write_parquet(path)
    return path


def predict(artifact: Path, bars: Path) -> list[str]:
    return [
        "predict", str(artifact), "--bars", str(bars), "--instrument", "Alpha", "--timeframe", "5",
        "--json",
    ]  # fmt: skip


def answer(*arguments: object) -> Any:
    """The JSON of a successful call, but for how long decisions took."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == DONE, result.output
    return json.loads(
        result.stdout, object_hook=lambda d: {k: v for k, v in d.items() if k != "latency_ms"}
    )


def test_parquet_is_read_where_polars_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert readers() is parquet.READERS
    monkeypatch.setitem(sys.modules, "polars", None)
    assert readers() is series.READERS


def test_predict_decides_on_parquet_as_on_csv(
    artifact_folder: Path, bars_folder: Path, parquet_file: Path
) -> None:
    expected = answer(*predict(artifact_folder, bars_folder / "Alpha_5.csv"))
    assert answer(*predict(artifact_folder, parquet_file)) == expected


def test_trace_and_backtest_read_parquet_as_csv(
    artifact_folder: Path, bars_folder: Path, parquet_file: Path, tmp_path: Path
) -> None:
    csv = bars_folder / "Alpha_5.csv"
    picture = ("--out", tmp_path / "trace.png", "--json")
    expected = answer("trace", artifact_folder, "--bars", csv, *picture)
    assert answer("trace", artifact_folder, "--bars", parquet_file, *picture) == expected
    expected = answer("backtest", artifact_folder, "--data", csv, "--json")
    found = answer("backtest", artifact_folder, "--data", parquet_file.parent, "--json")
    assert found == expected


def test_parquet_without_polars_exits_with_2_and_the_line_that_installs_it(
    artifact_folder: Path, parquet_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    result = CliRunner().invoke(app, predict(artifact_folder, parquet_file))
    assert result.exit_code == BAD_INPUT
    assert result.stdout == ""
    assert "Alpha_5.parquet: expected CSV; Parquet is read by" in result.stderr
    assert "pip install '.[train]'" in result.stderr


def test_deciding_on_parquet_needs_no_torch(artifact_folder: Path, parquet_file: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from hrm_cli.__main__ import main; main()"
    arguments = predict(artifact_folder, parquet_file)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == DONE, done.stderr
    assert json.loads(done.stdout)["reason"] == "ok"
