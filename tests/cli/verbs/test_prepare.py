"""`hrm prepare` writes tensors and says what it read."""

from dataclasses import asdict
from pathlib import Path

from command import BAD_INPUT, DONE, answer, hrm
from synthetic import random_bars

from hrm_runtime.market.csv_files import write_csv
from hrm_train.data.prepared import Prepared


def test_prepare_writes_tensors_and_says_what_it_read(
    settings: Path, few_bars: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bars.safetensors"
    said = answer("prepare", settings, "--data", few_bars, "--out", out)
    prepared = Prepared.load(out)
    assert said["samples"] == len(prepared)
    assert said["series"] == [asdict(one) for one in prepared.manifest.series]


def test_prepare_shows_a_table_and_names_what_it_skipped(
    settings: Path, few_bars: Path, tmp_path: Path
) -> None:
    write_csv(random_bars(50), tmp_path / "Short_5.csv")
    result = hrm(
        "prepare", settings, "--data", few_bars, "--data", tmp_path / "Short_5.csv",
        "--out", tmp_path / "bars.safetensors",
    )  # fmt: skip
    assert result.exit_code == DONE
    assert "Alpha_5" in result.stdout
    assert "skipped: 50 bars, 212 needed" in result.stdout


def test_prepare_refuses_a_file_that_is_there_before_any_work(
    settings: Path, few_bars: Path
) -> None:
    before = (few_bars / "Beta_5.csv").read_bytes()
    result = hrm("prepare", settings, "--data", few_bars, "--out", few_bars / "Beta_5.csv")
    assert result.exit_code == BAD_INPUT
    assert "expected a name ending in .safetensors" in result.stderr
    assert (few_bars / "Beta_5.csv").read_bytes() == before
