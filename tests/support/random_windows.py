"""Batches of windows as `Model.run` takes them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import Contract
from hrm_runtime.market.account import vector
from hrm_runtime.market.features import rows


@dataclass(frozen=True)
class Windows:
    """What one pass of the graph gets: features, account vectors, instrument and timeframe ids."""

    features: npt.NDArray[np.float32]
    account: npt.NDArray[np.float32]
    instrument: npt.NDArray[np.int64]
    timeframe: npt.NDArray[np.int64]

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return self.features, self.account, self.instrument, self.timeframe

    def __getitem__(self, chosen: Any) -> Self:
        return type(self)(*(array[chosen] for array in self.arrays))


def random_windows(contract: Contract, count: int, rng: np.random.Generator) -> Windows:
    """Windows at random places of one random series, with every account in turn."""
    series = rows(random_bars(400, seed=11), contract.features.history_bars)
    length = contract.features.window
    starts = rng.integers(0, len(series) - length + 1, count)
    accounts = list(ACCOUNTS.values())
    return Windows(
        features=np.stack(
            [[row.values for row in series[start : start + length]] for start in starts]
        ),
        account=np.stack(
            [
                vector(
                    accounts[number % len(accounts)],
                    close=series[start + length - 1].close,
                    atr=series[start + length - 1].atr,
                    instrument=contract.instruments["Alpha"],
                    brokerage_entry=contract.trading.brokerage_entry,
                    quantity_max=contract.quantity.max,
                )
                for number, start in enumerate(starts)
            ]
        ),
        instrument=rng.integers(0, len(contract.instruments), count),
        timeframe=rng.integers(0, len(contract.timeframes) + 1, count),
    )
