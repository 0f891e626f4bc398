"""What takes seconds in an export and is what few tests are about, done once."""

import hashlib
from dataclasses import replace

import pytest
from safetensors.torch import save

from hrm_export.graph.steps import Recurrent, Steps, convert
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.features import Row, rows
from hrm_train.network.model import HierarchicalReasoningModel


class Remembered:
    """Networks that torch has converted, and bars whose features were computed."""

    def __init__(self) -> None:
        self._steps: dict[bytes, Steps] = {}
        self._rows: dict[tuple[bytes, bytes, int], list[Row]] = {}

    def convert(self, model: HierarchicalReasoningModel) -> Steps:
        """`hrm_export.graph.steps.convert`, free to be changed."""
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        text = save(weights, {"settings": model.settings.model_dump_json()})
        key = hashlib.sha256(text).digest()
        if key not in self._steps:
            self._steps[key] = convert(model)
        return fresh(self._steps[key])

    def rows(self, bars: Bars, history_bars: int) -> list[Row]:
        """`hrm_runtime.market.features.rows`."""
        key = (bars.datetime.tobytes(), bars.close.tobytes(), history_bars)
        if key not in self._rows:
            self._rows[key] = rows(bars, history_bars)
        return self._rows[key]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let exports use it."""
        patch.setattr("hrm_export.graph.build.convert", self.convert)
        patch.setattr("hrm_export.proof.inputs.rows", self.rows)


def fresh(steps: Steps) -> Steps:
    """A copy that passes may change."""

    def copied(recurrent: Recurrent) -> Recurrent:
        return replace(recurrent, graph=recurrent.graph.clone())

    return Steps(
        encode=steps.encode.clone(),
        low=copied(steps.low),
        high=copied(steps.high),
        decode=steps.decode.clone(),
    )
