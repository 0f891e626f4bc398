"""The input: tables for names, frozen statistics for values, and the tokens made of both.

Suffixes as in `hrm_train.network.model`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from hrm_runtime.errors import (
    BadAccount,
    BadFeatures,
    BadInput,
    UnknownInstrument,
    UnknownTimeframe,
)
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.network.layers import Linear, truncated_normal_
from hrm_train.settings import Embeddings, Network

INITIALIZATIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "truncated_normal": partial(truncated_normal_, std=1.0),
    "xavier": nn.init.xavier_normal_,
    "he": nn.init.kaiming_normal_,
}


class ModelInput(NamedTuple):
    """What one pass needs of B windows.

    Attributes:
        features: float [B, W, F], rows as `hrm_runtime.market.features` makes them.
        account: float [B, C], as `hrm_runtime.market.account.vector` makes it.
        instrument, timeframe: int64 [B], rows of the tables; 0 stands for everything unknown.
    """

    features: Tensor
    account: Tensor
    instrument: Tensor
    timeframe: Tensor

    def require(self, network: Network, dtype: torch.dtype = torch.float32) -> None:
        """Hold it to what a network of these settings reads.

        Args:
            dtype: of its weights.

        Raises:
            BadFeatures, BadAccount: no tensor, of another type or shape, or not finite.
            UnknownInstrument, UnknownTimeframe: of another shape, no integers, or no rows of the
                table.
        """
        shaped = isinstance(self.features, Tensor) and self.features.ndim > 0
        rows = len(self.features) if shaped else 0
        values: tuple[tuple[str, tuple[int, ...], type[BadInput]], ...] = (
            ("features", (rows, network.input.window, len(FEATURES)), BadFeatures),
            ("account", (rows, len(ACCOUNT)), BadAccount),
        )
        for name, shape, refusal in values:
            value: Tensor = getattr(self, name)
            if not isinstance(value, Tensor) or (value.shape, value.dtype) != (shape, dtype):
                raise refusal(_expected(name, f"{dtype} {list(shape)}", value))
            if not value.isfinite().all():
                where = (~value.isfinite()).nonzero()[0].tolist()
                raise refusal(f"{name}: expected finite numbers, found {value[*where]} at {where}")
        ids: tuple[tuple[str, int, type[BadInput]], ...] = (
            ("instrument", network.embeddings.max_instruments, UnknownInstrument),
            ("timeframe", network.embeddings.max_timeframes, UnknownTimeframe),
        )
        for name, most, refusal in ids:
            value = getattr(self, name)
            integers = isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32)
            if not integers or value.shape != (rows,):
                raise refusal(_expected(name, f"integers [{rows}]", value))
            if rows and not 0 <= int(value.min()) <= int(value.max()) <= most:
                raise refusal(
                    f"{name}: expected ids from 0 to {most}, the rows of the table, found "
                    f"{int(value.min())} to {int(value.max())}"
                )


def _expected(name: str, what: str, found: object) -> str:
    if not isinstance(found, Tensor):
        return f"{name}: expected a tensor of {what}, found {type(found).__name__}"
    return f"{name}: expected {what}, found {found.dtype} {list(found.shape)}"


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

    def forward(self, x: ModelInput) -> Tensor:
        """x~: the tokens L reads at every step, [B, S, D_L]."""
        features_BWF, account_BC, instrument_B, timeframe_B = x
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
