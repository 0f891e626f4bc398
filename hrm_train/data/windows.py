"""Windows kept as bars and accounts: what parity and golden vectors are computed from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hrm_runtime.market.account import Account
from hrm_runtime.market.bars import Bars
from hrm_train.data.prepared import Prepared
from hrm_train.errors import CheckpointInvalid


@dataclass(frozen=True, eq=False)
class Windows:
    """g decisions to be made.

    Attributes:
        stamps: int64 [g, n], of the n bars one decision needs.
        prices: float64 [g, 4, n], open, high, low, close.
        accounts: float64 [g, 6], the fields of `Account`.
        instrument, timeframe: int64 [g] ids.
    """

    stamps: npt.NDArray[np.int64]
    prices: npt.NDArray[np.float64]
    accounts: npt.NDArray[np.float64]
    instrument: npt.NDArray[np.int64]
    timeframe: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, chosen: npt.NDArray[np.int64]) -> "Windows":
        return Windows(**{name: array[chosen] for name, array in vars(self).items()})

    def bars(self, index: int) -> Bars:
        """The bars of one window."""
        return Bars(self.stamps[index], *self.prices[index])

    def account(self, index: int) -> Account:
        """The account of one window."""
        return Account(*self.accounts[index].tolist())

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        path.write_bytes(save({name: np.ascontiguousarray(a) for name, a in vars(self).items()}))

    @classmethod
    def load(cls, path: Path) -> "Windows":
        """Read a file written by `save`.

        Raises:
            CheckpointInvalid: not such a file.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                return cls(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, TypeError) as error:
            raise CheckpointInvalid(f"{path}: expected held-out windows: {error}") from error


def concatenate(first: Windows, second: Windows) -> Windows:
    """Both, one after the other."""
    return Windows(
        **{name: np.concatenate((a, getattr(second, name))) for name, a in vars(first).items()}
    )


def windows(prepared: Prepared, samples: npt.NDArray[np.int64], bars_needed: int) -> Windows:
    """The windows of the given samples."""
    newest = prepared.row_bar[prepared.sample_row[samples]]
    span = newest[:, None] + np.arange(1 - bars_needed, 1)
    return Windows(
        stamps=prepared.bar_stamp[span],
        prices=np.ascontiguousarray(prepared.bar_price[span].transpose(0, 2, 1)),
        accounts=prepared.sample_raw_account[samples],
        instrument=prepared.sample_instrument[samples],
        timeframe=prepared.sample_timeframe[samples],
    )


def spread(
    prepared: Prepared, candidates: npt.NDArray[np.int64], count: int, seed: int
) -> npt.NDArray[np.int64]:
    """Up to `count` of the candidate samples, as evenly as they allow over instruments,
    timeframes and sides, seeded, in ascending order.
    """
    shuffled = np.random.default_rng(seed).permutation(candidates)
    kinds = (
        prepared.sample_instrument[shuffled],
        prepared.sample_timeframe[shuffled],
        prepared.sample_side[shuffled],
    )
    return np.sort(shuffled[round_robin(kinds)[:count]])


def round_robin(kinds: tuple[npt.NDArray[np.int64], ...]) -> npt.NDArray[np.int64]:
    """An order of n items that takes one of each kind in turn, keeping their order within a kind.

    Args:
        kinds: int64 [n] each; two items are of one kind where all of them agree.
    """
    if not len(kinds[0]):
        return np.zeros(0, dtype=np.int64)
    _, kind = np.unique(np.stack(kinds), axis=1, return_inverse=True)
    kind = kind.ravel()  # numpy 2.0.0 keeps both axes
    order = np.argsort(kind, kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.bincount(kind))[:-1]))
    rank = np.empty(len(kind), dtype=np.int64)  # how many of its kind come before
    rank[order] = np.arange(len(kind)) - starts[kind[order]]
    return np.argsort(rank, kind="stable")
