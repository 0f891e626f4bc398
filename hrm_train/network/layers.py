"""The layers of both recurrent modules: norms, rotation, attention, gates.

Suffixes as in `hrm_train.network.model`.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor, nn

from hrm_train.network.dropout import Dropout
from hrm_train.network.quantisation import quantised_linear
from hrm_train.settings import Transformer

RMS_EPSILON: Final = 1e-5
ROPE_BASE: Final = 10_000.0
TILE: Final = 128
"""Tokens that a GPU's kernels of attention work on at a time."""

MOST_TOGETHER: Final = 8
_TRUNCATED_STD: Final = 0.87962566103423978
"""Standard deviation of a unit normal truncated at 2."""


def truncated_normal_(weight: Tensor, std: float) -> Tensor:
    """Fill with a normal truncated at two deviations, scaled to have `std` after truncation."""
    scale = std / _TRUNCATED_STD
    return nn.init.trunc_normal_(weight, std=scale, a=-2 * scale, b=2 * scale)


class Linear(nn.Linear):
    """A linear map without bias, initialised truncated LeCun normal (std 1 / sqrt(fan_in))."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)

    def reset_parameters(self) -> None:
        """Draw the weight."""
        truncated_normal_(self.weight, 1.0 / math.sqrt(self.in_features))


class QuantisableLinear(Linear):
    """A product of the recurrence, in integers where its quantiser is on.

    Attributes:
        input_scale: scalar, the step between two levels of the input; None where it is off.
    """

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out)
        self.register_buffer("input_scale", None)
        self.input_scale: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """[..., fan_in] to [..., fan_out]."""
        if self.input_scale is None:
            return super().forward(x)
        return quantised_linear(x, self.weight, self.input_scale)


def rms_norm(x_BSD: Tensor) -> Tensor:
    """X / RMS(x) over the width, without a learned scale."""
    return F.rms_norm(x_BSD, (x_BSD.shape[-1],), eps=RMS_EPSILON)


class RotaryEmbedding(nn.Module):
    """cos and sin of the rotation of each token and frequency (RoPE, arXiv 2104.09864)."""

    def __init__(self, tokens: int, head_dim: int) -> None:
        super().__init__()
        frequencies = ROPE_BASE ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles_SK = torch.outer(torch.arange(tokens, dtype=torch.float64), frequencies).repeat(1, 2)
        self.register_buffer("cos_SK", angles_SK.cos(), persistent=False)
        self.register_buffer("sin_SK", angles_SK.sin(), persistent=False)
        self.cos_SK: Tensor
        self.sin_SK: Tensor

    def forward(self, x_BASK: Tensor) -> Tensor:
        """Rotate pairs (k, k + K/2) of every head."""
        first, second = x_BASK.chunk(2, dim=-1)
        turned_BASK = torch.cat((-second, first), dim=-1)
        return x_BASK * self.cos_SK.to(x_BASK) + turned_BASK * self.sin_SK.to(x_BASK)


def attend(q_BASK: Tensor, k_BASK: Tensor, v_BASK: Tensor) -> Tensor:
    """Each row's tokens attend to those of the same row.

    A GPU's kernels work on tiles of `TILE` tokens. Where rows are shorter, as many are laid side by
    side as one holds, each masked from the others: of 11 tokens, that takes a fifth of the time
    with gradient. Of 81, eight rows in one take twice as long.
    """
    rows, tokens = q_BASK.shape[0], q_BASK.shape[2]
    together = min(MOST_TOGETHER, TILE // tokens)
    if q_BASK.is_cuda and together > 1 and rows % together == 0:
        return attend_side_by_side(q_BASK, k_BASK, v_BASK, together)
    return F.scaled_dot_product_attention(q_BASK, k_BASK, v_BASK)


def attend_side_by_side(q_BASK: Tensor, k_BASK: Tensor, v_BASK: Tensor, together: int) -> Tensor:
    """Attention of so many rows at a time, as one of all their tokens."""
    q, k, v = (
        x_BASK.unflatten(0, (-1, together)).transpose(1, 2).flatten(2, 3)
        for x_BASK in (q_BASK, k_BASK, v_BASK)
    )
    tokens = q_BASK.shape[2]
    row = torch.arange(together, device=q.device).repeat_interleave(tokens)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=row[:, None] == row)
    apart: Tensor = mixed.unflatten(2, (together, tokens)).transpose(1, 2)
    return apart.flatten(0, 1)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, non-causal."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = QuantisableLinear(config.hidden_dim, 3 * config.hidden_dim)
        self.out = QuantisableLinear(config.hidden_dim, config.hidden_dim)

    def forward(self, x_BSD: Tensor, rotary: RotaryEmbedding) -> Tensor:
        """Mix tokens."""
        q_BASK, k_BASK, v_BASK = (
            part_BSD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part_BSD in self.qkv(x_BSD).chunk(3, dim=-1)
        )
        mixed_BASK = attend(rotary(q_BASK), rotary(k_BASK), v_BASK)
        mixed_BSD: Tensor = self.out(mixed_BASK.transpose(1, 2).flatten(-2))
        return mixed_BSD


class SwiGLU(nn.Module):
    """Gated feed-forward: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        self.gate_up = QuantisableLinear(config.hidden_dim, 2 * config.ffn_dim)
        self.down = QuantisableLinear(config.ffn_dim, config.hidden_dim)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Transform each token by itself."""
        gate, up = self.gate_up(x_BSD).chunk(2, dim=-1)
        out_BSD: Tensor = self.down(F.silu(gate) * up)
        return out_BSD


class Block(nn.Module):
    """Post-norm: the residual stream itself is normalised, so states stay bounded."""

    def __init__(self, config: Transformer, number: int = 0) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = SwiGLU(config)
        self.mixed = Dropout(config.dropout, 2 * number)
        self.transformed = Dropout(config.dropout, 2 * number + 1)

    def forward(self, x_BSD: Tensor, rotary: RotaryEmbedding, key: Tensor | None = None) -> Tensor:
        """One layer."""
        x_BSD = rms_norm(x_BSD + self.mixed(self.attention(x_BSD, rotary), key))
        return rms_norm(x_BSD + self.transformed(self.mlp(x_BSD), key))
