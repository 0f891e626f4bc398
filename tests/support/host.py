"""Observations as the host's training environment makes them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from synthetic import ACCOUNTS

from hrm_runtime import Account, Bars
from hrm_runtime.live.observation import ACCOUNT_VALUES, HOST_COLUMNS
from hrm_runtime.market.bars import PRICES

Observation = npt.NDArray[np.float32]


def observed(
    bars: Bars,
    account: Account = ACCOUNTS["flat"],
    columns: Sequence[str] = HOST_COLUMNS,
    lookback: int = 50,
) -> Observation:
    """What the host shows at the close of the last of `bars`; its indicators are 40, 41, ..."""
    known = {name: getattr(bars, name)[-lookback:] for name in PRICES}
    known["datetime_epoch"] = bars.datetime[-lookback:]
    other = {name: np.full(lookback, 40.0 + place) for place, name in enumerate(columns)}
    market = np.stack([known.get(name, other[name]) for name in columns], axis=1)
    values = [float(getattr(account, name)) for name in ACCOUNT_VALUES]
    return np.concatenate((market.ravel(), values)).astype(np.float32)
