"""Products in 8-bit integers: what the deployed graph computes, with a gradient.

Inputs are whole multiples of one static scale, weights of a scale per output. The graph has inputs
as unsigned bytes, `ZERO_POINT` more than here.

    I inputs    O outputs
"""

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor

ZERO_POINT: Final = 128
INPUT_LEVELS: Final = (-ZERO_POINT, 255 - ZERO_POINT)
WEIGHT_LEVELS: Final = 64
"""Weights lie in [-64, 64]: two products with a byte, 2 x 255 x 64, fit the 16 bits in which a CPU
without VNNI adds them. At -128 to 127 its sums saturate, silently."""


def quantised_linear(x: Tensor, weight_OI: Tensor, input_scale: Tensor) -> Tensor:
    """The product of x [..., I] and the weights in integers, times both scales, [..., O].

    Sums of integers are exact in float32 below 2**24, in any order; bfloat16 holds every level.
    The gradient passes rounding as if there were none. It is 0 for inputs beyond the levels, and
    takes the weights' scale as given.

    Args:
        x: any floating point type.
        weight_OI: the weights.
        input_scale: scalar, on the device of `x`: a division by a plain number may be computed as a
            product with its inverse, which rounds otherwise.
    """
    scaled = x.to(input_scale.dtype) / input_scale
    levels = _round(scaled.clamp(*INPUT_LEVELS))
    levels_OI, scale_O = quantise_weight(weight_OI)
    return F.linear(levels, levels_OI) * (input_scale * scale_O)


def quantise_weight(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Levels [O, I], whole numbers within `WEIGHT_LEVELS`, and the scale [O] of each output."""
    tiny = torch.finfo(weight_OI.dtype).tiny  # of an output whose weights are all 0
    scale_O = (weight_OI.detach().abs().amax(dim=1) / WEIGHT_LEVELS).clamp(min=tiny)
    return _round(weight_OI / scale_O[:, None]), scale_O


def _round(x: Tensor) -> Tensor:
    """Half to even, with the gradient of the identity; exact, since the difference is."""
    return x + (x.round() - x).detach()
