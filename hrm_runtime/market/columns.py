"""The names and order of the numbers that enter the network, without what computes them.

Kept apart from `features`, which needs TA-Lib: a machine that only trains from prepared tensors
knows the columns but has no bars.
"""

from typing import Final

FEATURE_VERSION: Final = 1
"""Raised whenever a definition in `features` changes under an unchanged name."""

HISTORY_BARS: Final = 512
"""Default number of bars behind one feature row, itself included."""

LEAST_HISTORY: Final = 200
"""sma_200 and ema_200 need this many bars."""

FEATURES: Final = (
    *(f"sma_{period}" for period in (5, 10, 20, 50, 100, 200)),
    *(f"ema_{period}" for period in (5, 10, 20, 50, 100, 200)),
    "macd",
    "macd_signal",
    "macd_histogram",
    "rsi_14",
    "rsi_21",
    "stoch_k",
    "stoch_d",
    "williams_r",
    "cci",
    "adx",
    "di_plus",
    "di_minus",
    "momentum_10",
    "roc_10",
    "trix",
    "atr",
    "bb_upper",
    "bb_middle",
    "bb_lower",
    "bb_width",
    "bb_position",
    "trend_slope",
    "trend_strength",
    "trend_direction",
    "price_change",
    "price_change_abs",
    "hl_range",
    "body_size",
    "upper_shadow",
    "lower_shadow",
    "sma_5_20_cross",
    "sma_10_50_cross",
    "price_vs_sma_20",
    "price_vs_ema_20",
    "volatility_10",
    "volatility_20",
    # the names of the host's 48 indicators end here; `features` says which differ from the host's
    "open",
    "high",
    "low",
    "log_return",
    "time_of_day",
    "day_of_week",
)

ACCOUNT: Final = (
    "side",
    "entry_vs_close_atr",
    "profit_vs_capital",
    "affordable_lots_log",
    "distance_to_trail_atr",
)
"""The account as the network sees it; `account.vector` computes it."""
