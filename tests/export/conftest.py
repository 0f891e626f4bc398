"""What the export tests share: graphs on every stage of their making, and windows to run."""

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from halting import train_halting
from remembered import Remembered
from synthetic import SMALL
from torch.onnx._internal.exporter._registration import ONNXRegistry

from hrm_export.graph.build import Built
from hrm_export.proof.inputs import Inputs, window_inputs
from hrm_runtime import Contract, load_contract
from hrm_runtime.artifact.contract import Precision
from hrm_train import load_checkpoint
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.settings import parse_settings

Graphs = Callable[[Precision], dict[str, Built]]


@pytest.fixture(scope="session", autouse=True)
def one_registry() -> Iterator[None]:
    """Torch looks its operators up anew for each graph, a third of the time that one takes."""
    of_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", of_torchlib)
        yield


@pytest.fixture(scope="session")
def quantised(quantised_folder: Path) -> Checkpoint:
    return load_checkpoint(quantised_folder)


@pytest.fixture(scope="session")
def even_folder(bars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two modules of one width, so that no product joins them; L has two blocks."""
    even = copy.deepcopy(SMALL)
    even["hierarchical_reasoning_model"]["l_module"] = {
        "hidden_dim": 16, "num_layers": 2, "num_heads": 4, "ffn_dim": 20,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("even") / "checkpoint"
    train_halting(parse_settings(even), [bars_folder], folder)
    return folder


@pytest.fixture(scope="session")
def even(even_folder: Path) -> Checkpoint:
    return load_checkpoint(even_folder)


@pytest.fixture(scope="session")
def graphs(checkpoint: Checkpoint, quantised: Checkpoint, remembered: Remembered) -> Graphs:
    """By precision and stage, the graphs of `checkpoint`, for int8 those of `quantised`."""

    @cache
    def of(precision: Precision) -> dict[str, Built]:
        source = quantised if precision == "int8" else checkpoint
        with pytest.MonkeyPatch.context() as patch:
            remembered.install(patch)
            built = remembered.stages(source.model, precision)
        return {each.stage: each for each in built}

    return of


@pytest.fixture(scope="session")
def contract(artifact_folder: Path) -> Contract:
    return load_contract(artifact_folder)


@pytest.fixture(scope="session")
def all_inputs(contract: Contract, checkpoint: Checkpoint, remembered: Remembered) -> Inputs:
    """Of every held-out window."""
    with pytest.MonkeyPatch.context() as patch:
        remembered.install(patch)
        return window_inputs(contract, checkpoint.windows)


@pytest.fixture(scope="session")
def inputs(all_inputs: Inputs) -> Inputs:
    """Of sixty of them, over all instruments, timeframes and sides."""
    spread = slice(None, 60 * (len(all_inputs) // 60), len(all_inputs) // 60)
    return Inputs(**{name: value[spread] for name, value in vars(all_inputs).items()})
