"""The feature row of a bar: 48 indicators by the host's names, scale-free, and what goes with them.

A row is computed from exactly the last `history_bars` bars ending there. Recursive indicators
(EMA, RSI, ATR, ADX) depend on where a series starts, so fixing the start makes a row a function
of those bars alone: live rows equal training rows bit for bit.

Everything starts from prices relative to the newest close, `(price - close) / close`. That makes
each feature scale-free at its root, turns cancellation between large prices into exact small
numbers, and gives a series that stands still exact zeros. Only the directional indicators (ADX,
DI) compare moves for equality, which dividing by the close would upset on a grid of ticks: their
prices are scaled by a power of two, which is exact. Point-valued quantities (macd,
momentum, slope, changes) are then divided by the ATR. Nothing is rounded.

A zero denominator gives 0, a sign at equality is 0, standard deviations are population.

Under three of those names the host computes something else: `price_change_abs` (there the absolute
change in %), `volatility_10` and `volatility_20` (there the deviation of prices over their mean).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import talib

from hrm_runtime.errors import BadInput, TooFewBars
from hrm_runtime.market.bars import PRICES, Bars, Floats
from hrm_runtime.market.columns import FEATURES, HISTORY_BARS, LEAST_HISTORY
from hrm_runtime.market.stamps import moment

_AVERAGES: Final = (5, 10, 20, 50, 100, 200)
_SMA_LENGTHS: Final = np.array(_AVERAGES)
_ROUNDING: Final = 1e-12
"""Far below a tick's share of an average (some 1e-9), far above float64's error (some 1e-15)."""

_SECONDS_PER_DAY: Final = 86_400
_EPOCH_WEEKDAY: Final = 3  # a Thursday; Monday is 0
_CENTRED_20: Final = np.arange(20) - 9.5
_SQUARES_20: Final = float((_CENTRED_20**2).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One bar as the network sees it.

    Attributes:
        datetime: opening time of the bar, epoch seconds UTC.
        close: its close, in currency.
        atr: its 14-bar average true range, in currency.
        values: float32 [F], in the order of `columns.FEATURES`; always finite.
        history_bars: how many bars it was computed from.
    """

    datetime: int
    close: float
    atr: float
    values: npt.NDArray[np.float32]
    history_bars: int

    def __repr__(self) -> str:
        told = f"close {self.close:,.10g}, atr {self.atr:.4g}, {len(self.values)} values"
        return f"Row({moment(self.datetime)}, {told} from {self.history_bars} bars)"


def row(bars: Bars, history_bars: int = HISTORY_BARS) -> Row:
    """The feature row of the newest bar.

    Raises:
        TooFewBars: fewer than `history_bars` bars.
    """
    return _rows(bars[max(0, len(bars) - history_bars) :], history_bars)[0]


def rows(bars: Bars, history_bars: int = HISTORY_BARS) -> list[Row]:
    """`row` of every bar that has its history: `len(bars) - history_bars + 1` rows, oldest first.

    Raises:
        TooFewBars: fewer than `history_bars` bars.
    """
    return _rows(bars, history_bars)


def _rows(bars: Bars, history_bars: int) -> list[Row]:
    if history_bars < LEAST_HISTORY:
        raise BadInput(f"history_bars: expected at least {LEAST_HISTORY}, was {history_bars}")
    if len(bars) < history_bars:
        raise TooFewBars(f"bars: expected at least {history_bars} for one row, found {len(bars)}")
    prices = np.stack([getattr(bars, name) for name in PRICES])  # [4, n]
    ends = range(history_bars, len(bars) + 1)
    return [_row(int(bars.datetime[end - 1]), prices[:, end - history_bars : end]) for end in ends]


def _row(stamp: int, prices: Floats) -> Row:
    """The row of the last of `prices` [4, history] (open, high, low, close)."""
    price = float(prices[3, -1])
    o, h, l, c = (prices - price) / price  # noqa: E741, the field's letters
    before, ten_before = float(prices[3, -2]), float(prices[3, -11])
    last_open, last_high, last_low = float(o[-1]), float(h[-1]), float(l[-1])

    exact = prices[1:] * math.ldexp(1.0, -math.frexp(price)[1])

    atr = _last(talib.ATR, h, l, c, 14)
    sums = np.cumsum(c[:-201:-1])[_SMA_LENGTHS - 1]  # newest first: a sum holds its own bars only
    sma = dict(zip(_AVERAGES, (sums / _SMA_LENGTHS).tolist(), strict=True))
    ema = {period: _last(talib.EMA, c, period) for period in _AVERAGES}
    macd, macd_signal, macd_histogram = (float(line[-1]) for line in talib.MACD(c, 12, 26, 9))
    recent = slice(-18, None)  # stoch_d: 14 bars, smoothed by 3, twice
    stoch_k, stoch_d = (
        float(line[-1])
        for line in talib.STOCH(
            h[recent], l[recent], c[recent], fastk_period=14, slowk_period=3, slowd_period=3
        )
    )

    deviation = _deviation(c[-20:])
    upper, lower = sma[20] + 2.0 * deviation, sma[20] - 2.0 * deviation
    slope, strength = _trend(c[-20:])
    returns = np.diff(prices[3, -21:]) / prices[3, -21:-1]

    # whole, for a part would need most of the numbers above: one line for each feature
    values = {
        **{f"sma_{period}": value for period, value in sma.items()},
        **{f"ema_{period}": value for period, value in ema.items()},
        "macd": _ratio(macd, atr),
        "macd_signal": _ratio(macd_signal, atr),
        "macd_histogram": _ratio(macd_histogram, atr),
        "rsi_14": _last(talib.RSI, c, 14),
        "rsi_21": _last(talib.RSI, c, 21),
        "stoch_k": stoch_k,
        "stoch_d": stoch_d,
        "williams_r": _last(talib.WILLR, h[-14:], l[-14:], c[-14:], 14),
        "cci": _last(talib.CCI, h[-20:], l[-20:], c[-20:], 20),
        "adx": _last(talib.ADX, *exact, 14),
        "di_plus": _last(talib.PLUS_DI, *exact, 14),
        "di_minus": _last(talib.MINUS_DI, *exact, 14),
        "momentum_10": _ratio(-float(c[-11]), atr),
        "roc_10": _percent(price - ten_before, ten_before),
        "trix": _last(talib.TRIX, prices[3] / price, 14),
        "atr": atr,
        "bb_upper": upper,
        "bb_middle": sma[20],
        "bb_lower": lower,
        "bb_width": _percent(upper - lower, 1.0 + sma[20]),
        "bb_position": _percent(-lower, upper - lower),
        "trend_slope": _ratio(slope, atr),
        "trend_strength": strength,
        "trend_direction": _sign(slope),
        "price_change": _percent(price - before, before),
        "price_change_abs": _ratio(-float(c[-2]), atr),
        "hl_range": 100.0 * (last_high - last_low),
        "body_size": 100.0 * abs(last_open),
        "upper_shadow": 100.0 * (last_high - max(last_open, 0.0)),
        "lower_shadow": 100.0 * (min(last_open, 0.0) - last_low),
        "sma_5_20_cross": _sign(sma[5] - sma[20]),
        "sma_10_50_cross": _sign(sma[10] - sma[50]),
        "price_vs_sma_20": _percent(-sma[20], 1.0 + sma[20]),
        "price_vs_ema_20": _percent(-ema[20], 1.0 + ema[20]),
        "volatility_10": 100.0 * _deviation(returns[-10:]),
        "volatility_20": 100.0 * _deviation(returns),
        "open": last_open,
        "high": last_high,
        "low": last_low,
        "log_return": math.log(price / before),
        "time_of_day": (stamp % _SECONDS_PER_DAY) / _SECONDS_PER_DAY,
        "day_of_week": (stamp // _SECONDS_PER_DAY + _EPOCH_WEEKDAY) % 7 / 7.0,
    }
    ordered = np.array([values[name] for name in FEATURES], dtype=np.float32)
    return Row(stamp, price, atr * price, ordered, prices.shape[1])


def _last(indicator: Callable[..., Floats], *arguments: object) -> float:
    return float(indicator(*arguments)[-1])


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _percent(numerator: float, denominator: float) -> float:
    return 100.0 * _ratio(numerator, denominator)


def _sign(value: float) -> float:
    """-1, 0 or 1; what rounding leaves of two equal averages of relative prices is 0."""
    return float((value > _ROUNDING) - (value < -_ROUNDING))


def _deviation(values: Floats) -> float:
    """Population standard deviation; centred on the last value first, so equal values give 0."""
    shifted = values - values[-1]
    centred = shifted - shifted.sum() / len(shifted)
    return math.sqrt(float((centred * centred).sum()) / len(centred))


def _trend(values: Floats) -> tuple[float, float]:
    """Slope per bar and R squared of the least-squares line through 20 values."""
    shifted = values - values[-1]
    centred = shifted - shifted.sum() / 20
    covariance = float((_CENTRED_20 * centred).sum())
    variance = float((centred * centred).sum())
    slope = covariance / _SQUARES_20
    return slope, _ratio(slope * covariance, variance)
