from hrm_runtime.market.columns import (
    ACCOUNT,
    FEATURE_VERSION,
    FEATURES,
    HISTORY_BARS,
    LEAST_HISTORY,
)

HOST_INDICATORS = """
    sma_5 sma_10 sma_20 sma_50 sma_100 sma_200 ema_5 ema_10 ema_20 ema_50 ema_100 ema_200
    macd macd_signal macd_histogram rsi_14 rsi_21 stoch_k stoch_d williams_r cci
    adx di_plus di_minus momentum_10 roc_10 trix atr bb_upper bb_middle bb_lower bb_width
    bb_position trend_slope trend_strength trend_direction price_change price_change_abs
    hl_range body_size upper_shadow lower_shadow sma_5_20_cross sma_10_50_cross
    price_vs_sma_20 price_vs_ema_20 volatility_10 volatility_20
"""

OURS = ["open", "high", "low", "log_return", "time_of_day", "day_of_week"]


def test_the_host_s_48_indicators_come_first_in_its_order() -> None:
    indicators = HOST_INDICATORS.split()
    assert len(indicators) == 48
    assert list(FEATURES) == indicators + OURS


def test_the_account_s_numbers_are_pinned() -> None:
    assert ACCOUNT == (
        "side",
        "entry_vs_close_atr",
        "profit_vs_capital",
        "affordable_lots_log",
        "distance_to_trail_atr",
    )


def test_versions_and_lengths_are_pinned() -> None:
    assert (FEATURE_VERSION, HISTORY_BARS, LEAST_HISTORY) == (1, 512, 200)
