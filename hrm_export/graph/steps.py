"""From torch to four small graphs: encode, one low step, one high step, decode.

The N x T unroll repeats these, so torch converts each once and `compose` writes them out.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir
import torch
from torch import Tensor, nn

from hrm_runtime.artifact.contract import INPUTS
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.network.model import HierarchicalReasoningModel, residual
from hrm_train.network.recurrent import RecurrentModule

OPSET: Final = 23
"""The first with RMSNormalization and Attention; from 25 on, onnxruntime's CPU lacks kernels."""

NEXT: Final = "next"
CHANGE: Final = "change"
"""Outputs of a low and of a high step: the next state [B, S, D], its residual [B, 1, 1]."""

_MODEL: Final = "model."
"""What torch puts before the names of weights: the attribute that holds the model below."""


@dataclass(frozen=True, eq=False)
class Recurrent:
    """The graph of one step of a recurrent module, and how much of everything it has.

    Attributes:
        blocks: transformer blocks.
        joins: 1 where the other module's state passes through a product first, else 0.
    """

    graph: ir.Model
    blocks: int
    joins: int


@dataclass(frozen=True, eq=False)
class Steps:
    """The four graphs; weights are initializers named as in the model's `state_dict`."""

    encode: ir.Model
    low: Recurrent
    high: Recurrent
    decode: ir.Model


def convert(model: HierarchicalReasoningModel) -> Steps:
    """The steps of `model` as torch converts them, batch dynamic."""
    network, tokens = model.settings.network, model.tokens
    batch = 2  # any size that is not special
    example = {
        "features": torch.zeros(batch, network.input.window, len(FEATURES)),
        "account": torch.zeros(batch, len(ACCOUNT)),
        "instrument": torch.zeros(batch, dtype=torch.int64),
        "timeframe": torch.zeros(batch, dtype=torch.int64),
        "x": torch.zeros(batch, tokens, network.l_module.hidden_dim),
        "z_L": torch.zeros(batch, tokens, network.l_module.hidden_dim),
        "z_H": torch.zeros(batch, tokens, network.h_module.hidden_dim),
    }
    return Steps(
        encode=_convert(_Encode(model), example),
        low=_recurrent(_Low(model), model.l_module, model.l_module.from_h, example),
        high=_recurrent(_High(model), model.h_module, model.h_module.from_l, example),
        decode=_convert(_Decode(model), example),
    )


class _Step(nn.Module):
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: HierarchicalReasoningModel) -> None:
        super().__init__()
        self.model = model


class _Encode(_Step):
    inputs = INPUTS
    outputs = ("x",)

    def forward(
        self, features: Tensor, account: Tensor, instrument: Tensor, timeframe: Tensor
    ) -> Tensor:
        return self.model.encode(features, account, instrument, timeframe)


class _Low(_Step):
    inputs = ("z_L", "z_H", "x")
    outputs = (NEXT, CHANGE)

    def forward(self, z_L: Tensor, z_H: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        following = self.model.low(z_L, z_H, x)
        return following, residual(following, z_L)[:, None, None]


class _High(_Step):
    inputs = ("z_H", "z_L")
    outputs = (NEXT, CHANGE)

    def forward(self, z_H: Tensor, z_L: Tensor) -> tuple[Tensor, Tensor]:
        following = self.model.high(z_H, z_L)
        return following, residual(following, z_H)[:, None, None]


class _Decode(_Step):
    inputs = ("z_H", "account")
    outputs = ("action_type", "quantity", "value", "q_values")

    def forward(self, z_H: Tensor, account: Tensor) -> tuple[Tensor, ...]:
        answers = self.model.decode(z_H, account)
        return tuple(answers[name] for name in self.outputs)


def _recurrent(
    step: _Step, module: RecurrentModule, join: nn.Module, example: dict[str, Tensor]
) -> Recurrent:
    joins = 0 if isinstance(join, nn.Identity) else 1
    return Recurrent(_convert(step, example), blocks=len(module.blocks), joins=joins)


def _convert(step: _Step, example: dict[str, Tensor]) -> ir.Model:
    with _quiet():
        program = torch.onnx.export(
            step.eval(),
            tuple(example[name] for name in step.inputs),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            optimize=False,  # keeps the names of weights; `passes.clean` does it
            verbose=False,
            input_names=step.inputs,
            output_names=step.outputs,
            dynamic_shapes=({0: torch.export.Dim("B")},) * len(step.inputs),
        )
    assert program is not None
    graph = program.model.graph
    for name, value in list(graph.initializers.items()):
        value.name = name.removeprefix(_MODEL)
    return program.model


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
