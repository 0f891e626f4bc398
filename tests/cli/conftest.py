"""What tests of the command line share: settings, tensors, a terminal that breaks no line."""

from pathlib import Path

import pytest
from command import answer
from once import once
from rich.console import Console
from synthetic import SMALL, random_bars

from hrm_cli.show import console
from hrm_runtime.market.csv_files import write_csv
from hrm_train.settings import parse_settings, render


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(render(parse_settings(SMALL)))
    return path


FEW = 348
"""Bars of a series. Of all three 892 samples are trained on: 14 batches of 64, but for four."""


@pytest.fixture(scope="session")
def few_bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three series of `bars_folder`, of other bars and fewer, quick to train on."""

    def write(folder: Path) -> None:
        folder.mkdir()
        write_csv(random_bars(FEW, seed=4), folder / "Alpha_5.csv")
        write_csv(random_bars(FEW, seed=5), folder / "Beta_5.csv")
        write_csv(random_bars(FEW, seed=6, seconds=900), folder / "Beta_15.csv")

    return once(tmp_path_factory, "few-bars", write)


@pytest.fixture(scope="session")
def tensors(few_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared file of `few_bars`, and beside it the settings that it was made with."""

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / "settings.yaml").write_text(render(parse_settings(SMALL)))
        file = folder / "bars.safetensors"
        answer("prepare", folder / "settings.yaml", "--data", few_bars, "--out", file)

    return once(tmp_path_factory, "tensors", write) / "bars.safetensors"


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no cell is broken."""
    monkeypatch.setattr(console, "out", Console(width=200))
