"""What takes seconds in an export and is what few tests are about, done once."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from once import once

from hrm_export.graph.steps import Recurrent, Steps, convert
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.features import Row, rows
from hrm_train.network.model import HierarchicalReasoningModel

GRAPHS = ("encode", "low", "high", "decode")


class Remembered:
    """Shapes of networks that torch has converted, and bars whose features were computed.

    Torch writes networks of one shape alike but for their weights, as a test of the graph holds,
    so one of each is converted for all workers.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._steps: dict[str, Steps] = {}
        self._rows: dict[tuple[bytes, bytes, int], list[Row]] = {}

    def convert(self, model: HierarchicalReasoningModel) -> Steps:
        """`hrm_export.graph.steps.convert`, free to be changed."""
        shape = hashlib.sha256(model.settings.network.model_dump_json().encode()).hexdigest()
        if shape not in self._steps:
            folder = once(self._factory, f"steps-{shape}", lambda to: write(convert(model), to))
            self._steps[shape] = read(folder)
        return with_weights(self._steps[shape], model)

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


def write(steps: Steps, folder: Path) -> None:
    """The four graphs as files, and how much of everything the recurrent ones have."""
    folder.mkdir()
    for name, graph in graphs(steps).items():
        (folder / name).write_bytes(ir.to_proto(graph).SerializeToString())
    sizes = [(one.blocks, one.joins) for one in (steps.low, steps.high)]
    (folder / "sizes.json").write_text(json.dumps(sizes))


def read(folder: Path) -> Steps:
    encode, low, high, decode = (ir.from_proto(onnx.load_model(folder / name)) for name in GRAPHS)
    of_low, of_high = json.loads((folder / "sizes.json").read_text())
    return Steps(encode, Recurrent(low, *of_low), Recurrent(high, *of_high), decode)


def with_weights(steps: Steps, model: HierarchicalReasoningModel) -> Steps:
    """A copy that passes may change, with the weights of `model`."""
    weights = model.state_dict()
    copies = {name: graph.clone() for name, graph in graphs(steps).items()}
    for graph in copies.values():
        for name in graph.graph.initializers.keys() & weights.keys():
            tensor = ir.tensor(weights[name].numpy(), name=name)
            graph.graph.initializers[name].const_value = tensor
    return Steps(
        encode=copies["encode"],
        low=replace(steps.low, graph=copies["low"]),
        high=replace(steps.high, graph=copies["high"]),
        decode=copies["decode"],
    )


def graphs(steps: Steps) -> dict[str, ir.Model]:
    """All four, by what they compute."""
    four = (steps.encode, steps.low.graph, steps.high.graph, steps.decode)
    return dict(zip(GRAPHS, four, strict=True))
