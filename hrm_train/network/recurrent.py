"""H and L: stacks of blocks that step from state to state.

Suffixes as in `hrm_train.network.model`.
"""

import torch
from torch import Tensor, nn

from hrm_train.network.layers import Block, QuantisableLinear, RotaryEmbedding, truncated_normal_
from hrm_train.settings import Network, Transformer


class RecurrentModule(nn.Module):
    """A stack of blocks applied to its own state plus what is injected, by addition.

    Attributes:
        initial_D: the state every token starts from, drawn once and never trained.
    """

    def __init__(self, config: Transformer, tokens: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, number) for number in range(config.num_layers))
        self.rotary = RotaryEmbedding(tokens, config.hidden_dim // config.num_heads)
        self.register_buffer("initial_D", truncated_normal_(torch.empty(config.hidden_dim), 1.0))
        self.initial_D: Tensor

    def step(self, z_BSD: Tensor, injected_BSD: Tensor, key: Tensor | None) -> Tensor:
        """The next state; `key` is that of the step's dropout."""
        x_BSD = z_BSD + injected_BSD
        for block in self.blocks:
            x_BSD = block(x_BSD, self.rotary, key)
        return x_BSD


def join(width_in: int, width_out: int) -> nn.Module:
    """What brings one module's state to the other's width: nothing, where they are equal."""
    return nn.Identity() if width_in == width_out else QuantisableLinear(width_in, width_out)


class HighLevelModule(RecurrentModule):
    """H: z_H <- f_H(z_H + z_L), once per cycle."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.h_module, network.tokens)
        self.from_l = join(network.l_module.hidden_dim, network.h_module.hidden_dim)

    def forward(self, zH_BSD: Tensor, zL_BSD: Tensor, key: Tensor | None = None) -> Tensor:
        """One strategic step, from the state L settled in."""
        return self.step(zH_BSD, self.from_l(zL_BSD), key)


class LowLevelModule(RecurrentModule):
    """L: z_L <- f_L(z_L + z_H + x), T times per cycle."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.l_module, network.tokens)
        self.from_h = join(network.h_module.hidden_dim, network.l_module.hidden_dim)

    def forward(
        self, zL_BSD: Tensor, zH_BSD: Tensor, x_BSD: Tensor, key: Tensor | None = None
    ) -> Tensor:
        """One tactical step, under the guidance of H and the input."""
        return self.step(zL_BSD, self.from_h(zH_BSD) + x_BSD, key)
