"""A checkpoint that halts: with one epoch of training a halting head says the same to everyone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrm_train import train
from hrm_train.learning import epochs
from hrm_train.settings import Settings


def train_halting(settings: Settings, data: Iterable[Path], folder: Path) -> None:
    """Train, and before an epoch is validated give the halting head weights with which about half
    of the windows halt after a segment and the others do not, none of them at a tie.
    """

    def with_halting(fabric: Any, model: Any, tensors: Any, samples: Any, *others: Any) -> Any:
        head, generator = model.q_head.logits, torch.Generator().manual_seed(1)
        with torch.no_grad():
            torch.nn.init.normal_(head.weight, std=0.3, generator=generator)
            torch.nn.init.zeros_(head.bias)  # where the sigmoid is steep
            outputs, _ = model.eval()(*tensors.inputs(torch.from_numpy(samples)))
            q_halt, q_continue = outputs["q_values"].logit().unbind(dim=-1)
            middle = (q_halt - q_continue).sort().values.chunk(3)[1]
            widest = middle.diff().argmax()  # the middle would be one window's own value
            head.bias[1] += middle[widest : widest + 2].mean()
        return evaluate(fabric, model, tensors, samples, *others)

    evaluate = epochs.evaluate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epochs, "evaluate", with_halting)
        train(settings, data, folder)
