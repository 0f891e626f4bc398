"""Observations as the host's training environment makes them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from live import Clock
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import Account, Bars, HRMAgent, LiveEngine
from hrm_runtime.live.observation import ACCOUNT_VALUES, HOST_COLUMNS
from hrm_runtime.market.bars import PRICES

BARS = random_bars(260, seed=21)
LATER = Clock(BARS.datetime[-1] + 86_400.0)
"""All bars are closed; with `stale_after` none is ever stale: what time does is the engine's."""

Observation = npt.NDArray[np.float32]
Start = Callable[..., LiveEngine]
"""Makes engines that have seen bars."""


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


def normalised(bars: Bars = BARS) -> Observation:
    """The last of 100 observations as the host's environment scales it over all of them."""
    shown = np.array([observed(bars[: len(bars) - back]) for back in range(100)], dtype=float)
    deviation = shown.std(axis=0)
    scores = (shown[0] - shown.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return np.clip(scores, -5, 5).astype(np.float32)


def spoilt(place: int, value: float) -> Observation:
    """That of `BARS` with another value at a place."""
    observation = observed(BARS)
    observation[place] = value
    return observation


def in_float32(account: Account) -> Account:
    """What is left of an account in an observation."""
    values = observed(BARS, account)[-6:].tolist()
    return Account(**dict(zip(ACCOUNT_VALUES, values, strict=True)))


def agent_of(engine: LiveEngine, **options: Any) -> HRMAgent:
    """Of the stream that `start` feeds."""
    return HRMAgent(engine, "Alpha", "5", **options)
