"""The answers that are read from the state of H: [B, S, D], or its token 0, [B, D].

Suffixes as in `hrm_train.network.model`.
"""

import math

import torch
from torch import Tensor, nn

from hrm_runtime.market.actions import ILLEGAL_LOGIT, LEGAL, Action, Side
from hrm_train.network.layers import truncated_normal_
from hrm_train.settings import Network


def answer(network: Network, size: int) -> nn.Linear:
    """A linear map from the state to an answer, with a bias of 0."""
    width = network.h_module.hidden_dim
    linear = nn.Linear(width, size)
    truncated_normal_(linear.weight, network.output_heads.initial_scale / math.sqrt(width))
    nn.init.zeros_(linear.bias)
    return linear


def context(z_H: Tensor) -> Tensor:
    """What the answers are read from, [B, D]: token 0 of a state [B, S, D], or it as it is."""
    return z_H[:, 0] if z_H.ndim == 3 else z_H


class PolicyHead(nn.Module):
    """Logits of the five actions; those illegal on the account's side are exactly -1e4."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.logits = answer(network, len(Action))
        illegal = torch.ones(len(Side), len(Action), dtype=torch.bool)
        for side, actions in LEGAL.items():
            illegal[side + 1, list(actions)] = False
        self.register_buffer("illegal", illegal, persistent=False)  # rows: short, flat, long
        self.illegal: Tensor

    def forward(self, z_H: Tensor, side_B: Tensor | None = None) -> Tensor:
        """[B, 5], from the side as -1, 0 or 1; of no side, every action is legal."""
        if side_B is None:
            logits_B5: Tensor = self.logits(context(z_H))
            return logits_B5
        illegal_B5 = self.illegal[1 + side_B.clamp(-1, 1).round().long()]
        return torch.where(illegal_B5, ILLEGAL_LOGIT, self.logits(context(z_H)))


class QuantityHead(nn.Module):
    """Lots on a log scale between two bounds."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        config = network.output_heads
        self.position = answer(network, 1)
        self.log_min, self.log_max = math.log(config.quantity_min), math.log(config.quantity_max)
        self.bounds = (config.quantity_min, config.quantity_max)

    def forward(self, z_H: Tensor) -> Tensor:
        """[B], lots."""
        position_B = torch.sigmoid(self.position(context(z_H)).squeeze(-1))
        log_lots_B = self.log_min + position_B * (self.log_max - self.log_min)
        return log_lots_B.exp().clamp(*self.bounds)


class ValueHead(nn.Module):
    """Best return over the label horizon, in ATR."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.value = answer(network, 1)

    def forward(self, z_H: Tensor) -> Tensor:
        """[B]."""
        value_B: Tensor = self.value(context(z_H)).squeeze(-1)
        return value_B


class QHead(nn.Module):
    """Values of halting and of continuing. Starts at 0 weight and -5 bias, as published."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.logits = nn.Linear(network.h_module.hidden_dim, 2)
        nn.init.zeros_(self.logits.weight)
        nn.init.constant_(self.logits.bias, -5.0)

    def forward(self, z_H: Tensor) -> Tensor:
        """[B, 2] in [0, 1]: halt, continue."""
        return torch.sigmoid(self.logits(context(z_H)))
