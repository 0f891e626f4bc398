"""A batch by name."""

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a training step gets: features, account vectors, ids, and the labels."""

    features: Tensor
    account: Tensor
    instrument: Tensor
    timeframe: Tensor
    returns: Tensor
    lots: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the network gets."""
        return self.features, self.account, self.instrument, self.timeframe

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """All of it, in order."""
        return tuple(vars(self).values())

    def double(self) -> Self:
        """In double precision."""
        return type(self)(*(t.double() if t.is_floating_point() else t for t in self.arrays))

    def __getitem__(self, rows: Any) -> Self:
        return type(self)(*(tensor[rows] for tensor in self.arrays))
