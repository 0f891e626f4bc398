"""The input: tables for names, frozen statistics for values, and the tokens made of both.

Suffixes as in `hrm_train.network.model`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.network.layers import Linear, truncated_normal_
from hrm_train.settings import Embeddings, Network

INITIALIZATIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "truncated_normal": partial(truncated_normal_, std=1.0),
    "xavier": nn.init.xavier_normal_,
    "he": nn.init.kaiming_normal_,
}


class VocabularyEmbedding(nn.Embedding):
    """A table of 1 + `most` rows; row 0 stands for everything unknown.

    `initialization` says how it is drawn and with what deviation: `truncated_normal` 1, `xavier`
    sqrt(2 / (rows + width)) (Glorot and Bengio, 2010), `he` sqrt(2 / width) (arXiv 1502.01852);
    the last two are not truncated.
    """

    def __init__(self, most: int, width: int, initialization: str) -> None:
        self.initialization = initialization  # the table is drawn while it is made
        super().__init__(1 + most, width)

    def reset_parameters(self) -> None:
        """Draw the table."""
        INITIALIZATIONS[self.initialization](self.weight)


class InstrumentEmbedding(VocabularyEmbedding):
    """One learned vector per instrument."""

    def __init__(self, config: Embeddings) -> None:
        super().__init__(config.max_instruments, config.instrument_dim, config.initialization)


class TimeframeEmbedding(VocabularyEmbedding):
    """One learned vector per timeframe."""

    def __init__(self, config: Embeddings) -> None:
        super().__init__(config.max_timeframes, config.timeframe_dim, config.initialization)


class Standardise(nn.Module):
    """(x - mean) / std with the frozen statistics of the training part, clipped.

    Attributes:
        mean, std: [width], set once before training.
    """

    def __init__(self, width: int, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; the last axis is the width."""
        return ((x - self.mean) / self.std).clamp(-self.clip, self.clip)


class InputEmbeddingNetwork(nn.Module):
    """Standardise with frozen statistics, cut the window into patches, make tokens.

    Token 0 is context (who, what bar length, account); the others are patches of consecutive
    rows, oldest first, each told who and what bar length.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        width, config = network.l_module.hidden_dim, network.input
        identity = network.embeddings.instrument_dim + network.embeddings.timeframe_dim
        self.patch = config.patch
        self.instrument_embedding = InstrumentEmbedding(network.embeddings)
        self.timeframe_embedding = TimeframeEmbedding(network.embeddings)
        self.context = Linear(identity + len(ACCOUNT), width)
        self.patches = Linear(config.patch * len(FEATURES) + identity, width)
        self.features = Standardise(len(FEATURES), config.clip)
        self.account = Standardise(len(ACCOUNT), config.clip)

    def forward(
        self, features_BWF: Tensor, account_BC: Tensor, instrument_B: Tensor, timeframe_B: Tensor
    ) -> Tensor:
        """x~: the tokens L reads at every step, [B, S, D_L]."""
        patches_BPF = (
            self.features(features_BWF).unflatten(1, (-1, self.patch)).flatten(2)
        )  # F: of all its rows
        identity_BI = torch.cat(
            (self.instrument_embedding(instrument_B), self.timeframe_embedding(timeframe_B)), dim=-1
        )
        context_BD = self.context(torch.cat((identity_BI, self.account(account_BC)), dim=-1))
        identity_BPI = identity_BI[:, None].expand(-1, patches_BPF.shape[1], -1)
        patches_BPD = self.patches(torch.cat((patches_BPF, identity_BPI), dim=-1))
        return torch.cat((context_BD[:, None], patches_BPD), dim=1)
