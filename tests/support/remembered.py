"""What takes seconds in an export and is what few tests are about, done once."""

import hashlib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
import onnx_ir as ir
import pytest
from once import once
from safetensors.torch import save
from torch import Tensor

from hrm_export.graph import build
from hrm_export.graph.build import Built
from hrm_export.graph.steps import Recurrent, Steps, convert
from hrm_runtime.artifact.contract import Precision
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.features import Row, rows
from hrm_train.network.model import HierarchicalReasoningModel

GRAPHS = ("encode", "low", "high", "decode")


class Remembered:
    """Networks of one shape that torch converted, graphs made of them, and features of bars.

    Torch writes networks of one shape alike but for their weights, as a test of the graph holds,
    so one of each is converted for all workers.
    """

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._built: dict[tuple[Hashable, ...], list[Built]] = {}
        self._rows: dict[tuple[bytes, bytes, int], list[Row]] = {}

    def convert(self, model: HierarchicalReasoningModel) -> Steps:
        """`hrm_export.graph.steps.convert`, free to be changed."""
        shape = digest(model.settings.network.model_dump_json().encode())
        folder = once(self._factory, f"steps-{shape}", lambda to: write(convert(model), to))
        return read(folder, model.state_dict())

    def stages(self, model: HierarchicalReasoningModel, precision: Precision) -> list[Built]:
        """`hrm_export.graph.build.stages`, as the passes are now; not to be changed."""
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        written = save(weights, {"settings": model.settings.model_dump_json()})
        schedule = model.cycles, model.timesteps, model.reset_l
        passes = build.CLEANING, build.FUSION, build.quantisation
        key = digest(written), schedule, passes, precision
        if key not in self._built:
            self._built[key] = [*build.stages(model, precision)]
        return self._built[key]

    def rows(self, bars: Bars, history_bars: int) -> list[Row]:
        """`hrm_runtime.market.features.rows`."""
        key = (bars.datetime.tobytes(), bars.close.tobytes(), history_bars)
        if key not in self._rows:
            self._rows[key] = rows(bars, history_bars)
        return self._rows[key]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let exports use it."""
        patch.setattr("hrm_export.graph.build.convert", self.convert)
        patch.setattr("hrm_export.exporter.stages", self.stages)
        patch.setattr("hrm_export.proof.inputs.rows", self.rows)
        patch.setattr("hrm_runtime.market.features.rows", self.rows)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(steps: Steps, folder: Path) -> None:
    """The four graphs as files, and how much of everything the recurrent ones have."""
    folder.mkdir()
    for name, graph in graphs(steps).items():
        (folder / name).write_bytes(ir.to_proto(graph).SerializeToString())
    sizes = [(one.blocks, one.joins) for one in (steps.low, steps.high)]
    (folder / "sizes.json").write_text(json.dumps(sizes))


def read(folder: Path, weights: Mapping[str, Tensor] = MappingProxyType({})) -> Steps:
    """What `write` wrote, with these weights instead of those of the same names."""
    four = [ir.from_proto(onnx.load_model(folder / name)) for name in GRAPHS]
    for graph in four:
        initializers = graph.graph.initializers
        for name in initializers.keys() & weights.keys():
            initializers[name].const_value = ir.tensor(weights[name].numpy(), name=name)
    encode, low, high, decode = four
    of_low, of_high = json.loads((folder / "sizes.json").read_text())
    return Steps(encode, Recurrent(low, *of_low), Recurrent(high, *of_high), decode)


def graphs(steps: Steps) -> dict[str, ir.Model]:
    """All four, by what they compute."""
    four = (steps.encode, steps.low.graph, steps.high.graph, steps.decode)
    return dict(zip(GRAPHS, four, strict=True))
