"""What tests of the command line share: settings, tensors, a terminal that breaks no line."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from artifact_copy import ArtifactCopy
from command import SERVING, Serving, answer, hrm
from documents import ROOT
from forks import forking
from once import once
from remembered import Remembered
from rich.console import Console
from synthetic import SMALL, random_bars

import hrm_cli.demo
from hrm_cli.demo import demo_bars
from hrm_cli.show import console
from hrm_runtime.artifact.contract import FORMAT_VERSION
from hrm_runtime.market.csv_files import write_csv
from hrm_train.settings import parse_settings, render


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(render(parse_settings(SMALL)))
    return path


DEMO = {("AAPL", "D"), ("AAPL", "W"), ("IBM", "D"), ("IBM", "W"), ("FB", "W")}
NEWEST = 330
"""Bars of a series of the demo: what examples/paper_trading.py needs, and some."""

FEW = 348
"""Bars of a series: enough for two folds to be validated on."""


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


@pytest.fixture(scope="session")
def serving() -> Iterator[Serving]:
    """`hrm` in a process of its own in which nothing that only training needs can be imported."""
    with forking(SERVING, "--listen") as environment:
        yield Serving(environment)


@pytest.fixture
def imported_anew() -> Iterator[None]:
    """All modules of our packages are imported anew while the test lasts."""
    before = take_ours()
    yield
    take_ours()
    sys.modules.update(before)


def take_ours() -> dict[str, ModuleType]:
    ours = [name for name in sys.modules if name.startswith("hrm_")]
    return {name: sys.modules.pop(name) for name in ours}


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no cell is broken."""
    monkeypatch.setattr(console, "out", Console(width=200))


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frozen artifact, as if it were the one that comes with a clone: for any series."""

    def copy(folder: Path) -> None:
        shutil.copytree(ROOT / "tests" / "data" / f"artifact-{FORMAT_VERSION}", folder)
        ArtifactCopy(folder).reseal(allow_unknown_instrument=True, allow_unknown_timeframe=True)

    return once(tmp_path_factory, "released", copy)


class Said(NamedTuple):
    """How a call of `hrm` ended, as typer's result of it has it."""

    exit_code: int
    stdout: str
    stderr: str
    output: str


@pytest.fixture(scope="session")
def demo_run(
    released: Path, remembered: Remembered, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Said]:
    """The folder of a demo at the size of a test, and what it said.

    It has the newest bars of four of its series and of one that is too short, a network that
    trains in seconds, and parity on few windows.
    """
    series = {name: bars[-NEWEST:] for name, bars in demo_bars().items() if name in DEMO}
    # so small a network hardly learns to halt, and so few bars must suffice for four folds
    training = {**SMALL["training"], "max_segments": 1, "validation_fraction": 0.4}

    def run(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            remembered.install(patch)
            patch.setattr(hrm_cli.demo, "demo_bars", lambda: series)
            patch.setattr(hrm_cli.demo, "PRESETS", {"tiny": {**SMALL, "training": training}})
            patch.setattr(hrm_cli.demo, "PARITY_WINDOWS", 40)
            result = hrm("demo", "--out", folder / "hrm-demo", "--artifact", released)
        said = {name: getattr(result, name) for name in Said._fields}
        (folder / "said.json").write_text(json.dumps(said))

    folder = once(tmp_path_factory, "demo", run)
    return folder / "hrm-demo", Said(**json.loads((folder / "said.json").read_text()))
