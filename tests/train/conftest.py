"""Small, seeded fixtures: two instruments, two timeframes, one trained checkpoint."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch import Batch
from synthetic import SMALL, random_bars

from hrm_runtime.market.bars import Bars
from hrm_runtime.market.csv_files import write_csv
from hrm_train import HierarchicalReasoningModel, train
from hrm_train.data.preparation import prepare_series
from hrm_train.data.prepared import Prepared
from hrm_train.data.split import Split, chronological_split
from hrm_train.learning.run import Tensors
from hrm_train.settings import Settings, parse_settings

FACTS: dict[str, Any] = {
    "Nifty": {"type": "index", "lot_size": 75, "option_premium_range": [0.01, 0.02]},
}


def small(changes: dict[str, Any] | None = None) -> Settings:
    """SMALL, with Nifty declared, and with `changes` by dotted path (`network.` for the model).

    Of its validation part every series has something; threads are written down, as in a checkpoint.
    """
    document = copy.deepcopy({**SMALL, "instruments": FACTS})
    for path, value in {"training.validation_fraction": 0.4, **(changes or {})}.items():
        *sections, key = path.replace("network.", "hierarchical_reasoning_model.").split(".")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = value
    return parse_settings(document).with_threads()


@pytest.fixture(scope="session")
def make_settings() -> Callable[..., Settings]:
    return small


@pytest.fixture(scope="session")
def settings() -> Settings:
    return small()


@pytest.fixture(scope="session")
def series() -> dict[tuple[str, str], Bars]:
    return {
        ("Nifty", "15"): random_bars(260, seed=1, seconds=900, price=20_000.0),
        ("Nifty", "5"): random_bars(320, seed=2, price=20_000.0),
        ("Reliance", "5"): random_bars(300, seed=3, price=1_500.0),
    }


@pytest.fixture(scope="session")
def prepared(settings: Settings, series: dict[tuple[str, str], Bars]) -> Prepared:
    return prepare_series(settings, series)


@pytest.fixture(scope="session")
def tensors(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `prepared`. Copy it before changing it."""
    path = tmp_path_factory.mktemp("tensors") / "bars.safetensors"
    prepared.save(path)
    return path


@pytest.fixture(scope="session")
def split(prepared: Prepared, settings: Settings) -> Split:
    return chronological_split(
        prepared, settings.training.validation_fraction, settings.training.label_horizon
    )


@pytest.fixture(scope="session")
def batch(prepared: Prepared, settings: Settings) -> Batch:
    """Nine samples: each side of each series."""
    tensors = Tensors(prepared, settings.network.input.window)
    samples = torch.linspace(0, len(prepared) - 1, 9).long()
    return Batch(*tensors.inputs(samples), *tensors.labels(samples))


@pytest.fixture(scope="session")
def make_model() -> Callable[[Settings], HierarchicalReasoningModel]:
    """A seeded model in eval mode, its halting head and statistics drawn too: all outputs vary.

    NumPy draws the same numbers everywhere; torch's depend on its version and the processor.
    """

    def make(settings: Settings) -> HierarchicalReasoningModel:
        rng = np.random.default_rng(24)
        model = HierarchicalReasoningModel(settings).eval()
        for name, tensor in model.state_dict().items():
            table = "embedding" in name or tensor.ndim == 1
            deviation = 1.0 if table or "q_head" in name else tensor.shape[-1] ** -0.5
            drawn = deviation * rng.standard_normal(tensor.shape).clip(-2, 2)
            if name.endswith(".std"):
                drawn = rng.uniform(0.5, 2.0, tensor.shape)
            elif name.endswith(".mean"):
                drawn *= 0.1
            if not name.endswith(".bias"):
                tensor.copy_(torch.from_numpy(drawn))  # the model's own memory
        return model

    return make


@pytest.fixture
def model(
    make_model: Callable[[Settings], HierarchicalReasoningModel], settings: Settings
) -> HierarchicalReasoningModel:
    return make_model(settings)


@pytest.fixture(scope="session")
def bars_folder(
    tmp_path_factory: pytest.TempPathFactory, series: dict[tuple[str, str], Bars]
) -> Path:
    """The series as CSV files."""
    folder = tmp_path_factory.mktemp("bars")
    for (instrument, timeframe), bars in series.items():
        write_csv(bars, folder / f"{instrument}_{timeframe}.csv")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, bars_folder: Path) -> Path:
    """A checkpoint folder of two epochs. Copy it (`checkpoint`) before changing it."""
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    train(small({"training.epochs": 2}), [bars_folder], folder)
    return folder


@pytest.fixture
def checkpoint(trained: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint folder, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))
