"""Seeded bars and small settings that tests share."""

from dataclasses import replace
from typing import Any

import numpy as np

from hrm_runtime import Account, Bars
from hrm_runtime.market.stamps import EARLIEST_STAMP


def random_bars(count: int, seed: int = 0, seconds: int = 300, price: float = 100.0) -> Bars:
    """A random walk of consecutive bars up to one moment, the same for every series.

    Prices have two decimals, as a feed's do.
    """
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(rng.normal(0.0, 0.002, count)))
    opening = np.concatenate(([price], close[:-1])) * (1 + rng.normal(0.0, 0.0003, count))
    spread = price * np.abs(rng.normal(0.0, 0.001, (2, count)))
    opening, close = opening.round(2), close.round(2)
    high = np.maximum(opening, close) + spread[0].round(2)
    low = np.minimum(opening, close) - spread[1].round(2)
    stamps = 1_700_630_100 - seconds * np.arange(count)[::-1]
    return Bars(stamps, opening, high, low, close)


def scaled(bars: Bars, factor: float) -> Bars:
    """As a split adjusts them."""
    prices = {name: factor * getattr(bars, name) for name in ("open", "high", "low", "close")}
    return replace(bars, **prices)


def constant_bars(count: int) -> Bars:
    """Bars 300 s apart whose price never moves."""
    return Bars(EARLIEST_STAMP + 300 * np.arange(count), *np.full((4, count), 100.0))


ACCOUNTS = {
    "flat": Account.flat(500_000.0),
    "long": Account(500_000.0, 3.0, 99.0, 40.0, True, 0.004),
    "short": Account(500_000.0, -2.0, 101.0, 25.0, True, 0.006),
}

SMALL: dict[str, Any] = {
    "hierarchical_reasoning_model": {
        "h_module": {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 24},
        "l_module": {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "ffn_dim": 16},
        "hierarchical": {"N_cycles": 2, "T_timesteps": 2},
        "embeddings": {"max_instruments": 8, "max_timeframes": 4, "instrument_dim": 8,
                       "timeframe_dim": 4},
        "input": {"history_bars": 200, "window": 6, "patch": 2},
    },
    "training": {"epochs": 1, "batch_size": 64, "learning_rate": 1e-3, "warmup_steps": 5,
                 "label_horizon": 6},
}  # fmt: skip
"""Settings of a network small enough to train and export in seconds."""
