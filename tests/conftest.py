"""What the export and command line tests share: tiny checkpoints and the artifact made of one."""

import gc
import os

# read when torch is imported, here and in processes that tests start
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU rounds otherwise than what is compared with

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from once import once
from synthetic import SMALL, random_bars

from hrm_runtime.market.csv_files import write_csv

if TYPE_CHECKING:
    from remembered import Remembered

    from hrm_train.learning.checkpoint import Checkpoint


def pytest_collection_finish() -> None:
    """What was imported stays, so nothing looks through it again and again for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def bars_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three series of random bars as CSV files."""

    def write(folder: Path) -> None:
        folder.mkdir()
        write_csv(random_bars(700, seed=1), folder / "Alpha_5.csv")
        write_csv(random_bars(700, seed=2), folder / "Beta_5.csv")
        write_csv(random_bars(700, seed=3, seconds=900), folder / "Beta_15.csv")

    return once(tmp_path_factory, "bars", write)


@pytest.fixture(scope="session")
def checkpoint_folder(bars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one short epoch; half of the windows halt after a segment."""
    from halting import train_halting

    from hrm_train.settings import parse_settings

    def write(folder: Path) -> None:
        train_halting(parse_settings(SMALL), [bars_folder], folder)

    return once(tmp_path_factory, "checkpoint", write)


@pytest.fixture(scope="session")
def checkpoint(checkpoint_folder: Path) -> "Checkpoint":
    from hrm_train import load_checkpoint

    return load_checkpoint(checkpoint_folder)


@pytest.fixture(scope="session")
def quantised_folder(
    checkpoint_folder: Path, bars_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that went on from `checkpoint_folder` for an epoch with its quantisers on."""
    from hrm_train import train
    from hrm_train.settings import parse_settings

    def write(folder: Path) -> None:
        settings = parse_settings(SMALL)
        train(settings, [bars_folder], folder, quantise=True, init_from=checkpoint_folder)

    return once(tmp_path_factory, "quantised", write)


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> "Remembered":
    """What an export spends its seconds on, done once."""
    from remembered import Remembered

    return Remembered(tmp_path_factory)


@pytest.fixture
def quick_export(remembered: "Remembered", monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert no network and compute no feature again: they are not what a test is about."""
    remembered.install(monkeypatch)


@pytest.fixture(scope="session")
def artifact_folder(
    checkpoint_folder: Path, remembered: "Remembered", tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The artifact of `checkpoint_folder`."""
    from hrm_export import export

    def write(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            remembered.install(patch)
            export(checkpoint_folder, folder)

    return once(tmp_path_factory, "artifact", write)
