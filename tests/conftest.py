"""What the export and command line tests share: a tiny checkpoint and the artifact made of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from synthetic import SMALL, random_bars

from hrm_runtime.bars import write_csv

if TYPE_CHECKING:
    from hrm_train.checkpoint import Checkpoint


@pytest.fixture(scope="session")
def bars_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three series of random bars as CSV files."""
    folder = tmp_path_factory.mktemp("bars")
    write_csv(random_bars(700, seed=1), folder / "Alpha_5.csv")
    write_csv(random_bars(700, seed=2), folder / "Beta_5.csv")
    write_csv(random_bars(700, seed=3, seconds=900), folder / "Beta_15.csv")
    return folder


@pytest.fixture(scope="session")
def checkpoint_folder(bars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one short epoch; before that is validated, the halting head is given weights
    with which half of the windows halt after a segment and half do not.
    """
    import torch

    from hrm_train import train, trainer
    from hrm_train.settings import parse_settings

    def with_halting(fabric: Any, model: Any, tensors: Any, samples: Any, *others: Any) -> Any:
        head, generator = model.q_head.logits, torch.Generator().manual_seed(1)
        with torch.no_grad():
            torch.nn.init.normal_(head.weight, std=0.3, generator=generator)
            outputs, _ = model.eval()(*tensors.inputs(torch.from_numpy(samples)))
            q_halt, q_continue = outputs["q_values"].logit().unbind(dim=-1)
            head.bias[1] += (q_halt - q_continue).median()
        return evaluate(fabric, model, tensors, samples, *others)

    evaluate = trainer.evaluate
    folder = tmp_path_factory.mktemp("trained") / "checkpoint"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "evaluate", with_halting)
        train(parse_settings(SMALL), [bars_folder], folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(checkpoint_folder: Path) -> "Checkpoint":
    from hrm_train import load_checkpoint

    return load_checkpoint(checkpoint_folder)


@pytest.fixture(scope="session")
def artifact_folder(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of `checkpoint_folder`."""
    from hrm_export import export

    folder = tmp_path_factory.mktemp("exported") / "artifact"
    export(checkpoint_folder, folder)
    return folder


@pytest.fixture
def ready_graph(artifact_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the conversion, which takes seconds and is not what a test is about."""
    import onnx

    graph = onnx.load(artifact_folder / "model.onnx")
    monkeypatch.setattr("hrm_export.exporter.convert", lambda model: graph)
