"""Dropout whose masks are a function of a key: a step can be computed again, with no generator.

What is dropped follows from the key and the place in the tensor, by a hash of 32 bits, in integers
that every device adds up alike.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

_ROUNDS: Final = ((16, 0x7FEB352D), (15, -0x7B935975))
"""Shifts and odd factors of "lowbias32" (C. Wellons, Prospecting for Hash Functions, 2018)."""

_LAST_SHIFT: Final = 16

_APART: Final = -0x61C88647
"""2**32 over the golden ratio: multiples of it are spread over all numbers of 32 bits."""


def key_of(*numbers: int, device: torch.device | str = "cpu") -> Tensor:
    """A key, int32 scalar: of seed, optimizer step and process, for instance."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint32)
    return torch.from_numpy(state.view(np.int32))[0].to(device)


def keys_of(key: Tensor, count: int) -> Tensor:
    """`count` keys made of one, int32 [count]."""
    return _mixed(key + _APART * torch.arange(1, 1 + count, dtype=torch.int32, device=key.device))


class Dropout(nn.Module):
    """`nn.Dropout` by a key; in training, and where it is not told one, by a random one.

    Args:
        share: of the values, that becomes 0; the others grow by as much.
        number: of the layer among those that get the same key.
    """

    def __init__(self, share: float, number: int = 0) -> None:
        super().__init__()
        self.share = share
        self.number = number

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """The shape of `x`.

        Args:
            key: int32 scalar on the device of `x`.
        """
        if not self.training or not self.share:
            return x
        if key is None:
            key = torch.randint(2**31, (), dtype=torch.int32, device=x.device)
        place = torch.arange(x.numel(), dtype=torch.int32, device=x.device).view(x.shape)
        drawn = _mixed(place ^ _mixed(key + _APART * self.number)) & 0x7FFF_FFFF
        return torch.where(drawn >= int(self.share * 2**31), x / (1.0 - self.share), 0.0)


def _mixed(number: Tensor) -> Tensor:
    """A hash, int32 to int32, one to one."""
    for shift, factor in _ROUNDS:
        number = (number ^ _shifted(number, shift)) * factor
    return number ^ _shifted(number, _LAST_SHIFT)


def _shifted(number: Tensor, by: int) -> Tensor:
    """To the right, zeros coming in; torch repeats the sign."""
    return (number >> by) & ((1 << (32 - by)) - 1)
