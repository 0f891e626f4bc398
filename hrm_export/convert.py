"""From the unrolled module to one ONNX file: opset 23, shared weights, optional states."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import onnx
import torch
from onnx import numpy_helper
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
)

from hrm_export.unroll import INPUTS, Unrolled
from hrm_runtime.columns import ACCOUNT, FEATURES
from hrm_runtime.contract import OUTPUTS
from hrm_train.model import HierarchicalReasoningModel

OPSET: Final = 23
"""The first with RMSNormalization and Attention; from 25 on, onnxruntime's CPU lacks kernels."""

_STATES: Final = ("z_H", "z_L")
_WHOLE: Final = 2**31
"""Compare initializers up to this size, which is all of them."""


def convert(model: HierarchicalReasoningModel) -> onnx.ModelProto:
    """The N x T graph of `model` with a dynamic batch and optional states.

    Everything in it follows from the model: no names of files or classes, no time of day.
    """
    config = model.settings.network.input
    batch = 2  # any size that is not special
    zH_1SD, zL_1SD = model.initialize_states()
    example = (
        torch.zeros(batch, config.window, len(FEATURES)),
        torch.zeros(batch, len(ACCOUNT)),
        torch.zeros(batch, dtype=torch.int64),
        torch.zeros(batch, dtype=torch.int64),
        zH_1SD.repeat(batch, 1, 1),
        zL_1SD.repeat(batch, 1, 1),
    )
    with _quiet():
        program = torch.onnx.export(
            Unrolled(model).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=({0: torch.export.Dim("B")},) * len(example),
        )
    assert program is not None
    Sequential(
        DeduplicateInitializersPass(size_limit=_WHOLE),
        CommonSubexpressionEliminationPass(),
        ClearMetadataAndDocStringPass(),
    )(program.model)
    graph = program.model_proto
    _make_states_optional(graph, {"z_H": zH_1SD, "z_L": zL_1SD})
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _make_states_optional(graph: onnx.ModelProto, states: dict[str, torch.Tensor]) -> None:
    """Give each state input a default [1, S, D] and its own batch axis: 1 fits any batch.

    The shapes recorded between inputs and outputs took both axes for one and go.
    """
    graph.graph.ClearField("value_info")
    for entry in graph.graph.input:
        if entry.name in _STATES:
            entry.type.tensor_type.shape.dim[0].dim_param = "Bz"
    for name, state in states.items():
        default = numpy_helper.from_array(state.detach().contiguous().numpy(), name)
        graph.graph.initializer.append(default)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch says about itself while exporting."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)  # operators of packages that are not there
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            yield
    finally:
        registry.setLevel(level)
