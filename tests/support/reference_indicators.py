"""The features again, from their published definitions, in lists, loops and `math` alone.

Nothing here is shared with `hrm_runtime.market.features`: indicators are computed in currency,
oldest bar first, the slow and obvious way, and are made scale-free only at the end. Names of
helpers are those of the definitions: Wilder (1978) for RSI, ATR and ADX, Lambert for CCI, Lane for
the stochastic, Hutson for TRIX, Bollinger for the bands, Appel for MACD. Where a definition leaves
the start of a recursion open, it is TA-Lib's.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

Line = list[float]


def reference_row(
    stamp: int,
    opens: Sequence[float],
    highs: Sequence[float],
    lows: Sequence[float],
    closes: Sequence[float],
) -> dict[str, float]:
    """The 54 features of the newest bar, by name."""
    close, before = closes[-1], closes[-2]
    open_, high, low = opens[-1], highs[-1], lows[-1]
    atr = average_true_range(highs, lows, closes, 14)
    sma = {period: mean(closes[-period:]) for period in (5, 10, 20, 50, 100, 200)}
    ema = {period: exponential(closes, period)[-1] for period in (5, 10, 20, 50, 100, 200)}
    macd, macd_signal = convergence_divergence(closes, 12, 26, 9)
    stoch_k, stoch_d = stochastic(highs, lows, closes, 14, 3, 3)
    di_plus, di_minus, adx = directional(highs, lows, closes, 14)
    band = 2.0 * deviation(closes[-20:])
    upper, lower = sma[20] + band, sma[20] - band
    slope, r_squared = least_squares(closes[-20:])
    returns = [new / old - 1.0 for old, new in pairwise(closes)]
    moment = datetime.fromtimestamp(stamp, UTC)
    return {
        **{f"sma_{period}": value / close - 1.0 for period, value in sma.items()},
        **{f"ema_{period}": value / close - 1.0 for period, value in ema.items()},
        "macd": over(macd, atr),
        "macd_signal": over(macd_signal, atr),
        "macd_histogram": over(macd - macd_signal, atr),
        "rsi_14": relative_strength(closes, 14),
        "rsi_21": relative_strength(closes, 21),
        "stoch_k": stoch_k,
        "stoch_d": stoch_d,
        "williams_r": williams(highs, lows, closes, 14),
        "cci": commodity_channel(highs, lows, closes, 20),
        "adx": adx,
        "di_plus": di_plus,
        "di_minus": di_minus,
        "momentum_10": over(close - closes[-11], atr),
        "roc_10": 100.0 * (close - closes[-11]) / closes[-11],
        "trix": triple_exponential_change(closes, 14),
        "atr": atr / close,
        "bb_upper": upper / close - 1.0,
        "bb_middle": sma[20] / close - 1.0,
        "bb_lower": lower / close - 1.0,
        "bb_width": 100.0 * over(upper - lower, sma[20]),
        "bb_position": 100.0 * over(close - lower, upper - lower),
        "trend_slope": over(slope, atr),
        "trend_strength": r_squared,
        "trend_direction": sign(slope),
        "price_change": 100.0 * (close - before) / before,
        "price_change_abs": over(close - before, atr),
        "hl_range": 100.0 * (high - low) / close,
        "body_size": 100.0 * abs(close - open_) / close,
        "upper_shadow": 100.0 * (high - max(open_, close)) / close,
        "lower_shadow": 100.0 * (min(open_, close) - low) / close,
        "sma_5_20_cross": sign(sma[5] - sma[20]),
        "sma_10_50_cross": sign(sma[10] - sma[50]),
        "price_vs_sma_20": 100.0 * (close - sma[20]) / sma[20],
        "price_vs_ema_20": 100.0 * (close - ema[20]) / ema[20],
        "volatility_10": 100.0 * deviation(returns[-10:]),
        "volatility_20": 100.0 * deviation(returns[-20:]),
        "open": open_ / close - 1.0,
        "high": high / close - 1.0,
        "low": low / close - 1.0,
        "log_return": math.log(close / before),
        "time_of_day": (moment.hour * 3600 + moment.minute * 60 + moment.second) / 86_400,
        "day_of_week": moment.weekday() / 7,
    }


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Population standard deviation."""
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / len(values))


def over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator != 0 else 0.0


def sign(value: float) -> float:
    return math.copysign(1.0, value) if value != 0 else 0.0


def exponential(values: Sequence[float], period: int) -> Line:
    """EMA, from the bar at which `period` values are known: their mean starts it."""
    average = mean(values[:period])
    line = [average]
    for value in values[period:]:
        average += 2.0 / (period + 1) * (value - average)
        line.append(average)
    return line


def convergence_divergence(
    closes: Sequence[float], fast: int, slow: int, signal: int
) -> tuple[float, float]:
    """MACD and its signal. Both averages start at one bar, the first with `slow` values."""
    slow_line = exponential(closes, slow)
    fast_line = exponential(closes[slow - fast :], fast)
    macd = [quick - lazy for quick, lazy in zip(fast_line, slow_line, strict=True)]
    return macd[-1], exponential(macd, signal)[-1]


def triple_exponential_change(closes: Sequence[float], period: int) -> float:
    """TRIX: the change of the thrice smoothed close over one bar, in %."""
    line: Sequence[float] = closes
    for _ in range(3):
        line = exponential(line, period)
    return 100.0 * (line[-1] / line[-2] - 1.0)


def smoothed(values: Sequence[float], period: int) -> float:
    """Wilder's average: the mean of the first `period` values, then 1 part new in `period`."""
    average = mean(values[:period])
    for value in values[period:]:
        average = (average * (period - 1) + value) / period
    return average


def accumulated(values: Sequence[float], period: int) -> Line:
    """Wilder's running sum, from `period` values on; the first period - 1 start it plainly."""
    total = math.fsum(values[: period - 1])
    line = []
    for value in values[period - 1 :]:
        total += value - total / period
        line.append(total)
    return line


def true_ranges(highs: Sequence[float], lows: Sequence[float], closes: Sequence[float]) -> Line:
    """From the second bar on: the range from the last close to this bar's farthest ends."""
    return [
        max(high, before) - min(low, before)
        for high, low, before in zip(highs[1:], lows[1:], closes, strict=False)
    ]


def average_true_range(
    highs: Sequence[float], lows: Sequence[float], closes: Sequence[float], period: int
) -> float:
    return smoothed(true_ranges(highs, lows, closes), period)


def relative_strength(closes: Sequence[float], period: int) -> float:
    """RSI."""
    changes = [new - old for old, new in pairwise(closes)]
    gain = smoothed([max(change, 0.0) for change in changes], period)
    loss = smoothed([max(-change, 0.0) for change in changes], period)
    return 100.0 * over(gain, gain + loss)


def directional(
    highs: Sequence[float], lows: Sequence[float], closes: Sequence[float], period: int
) -> tuple[float, float, float]:
    """+DI, -DI and ADX. A bar moves in the direction in which it reaches farther, or in none."""
    ups = [new - old for old, new in pairwise(highs)]
    downs = [old - new for old, new in pairwise(lows)]
    moves = list(zip(ups, downs, strict=True))
    plus = accumulated([up if up > max(down, 0.0) else 0.0 for up, down in moves], period)
    minus = accumulated([down if down > max(up, 0.0) else 0.0 for up, down in moves], period)
    ranges = accumulated(true_ranges(highs, lows, closes), period)
    plus = [100.0 * over(value, total) for value, total in zip(plus, ranges, strict=True)]
    minus = [100.0 * over(value, total) for value, total in zip(minus, ranges, strict=True)]
    index = [100.0 * over(abs(p - m), p + m) for p, m in zip(plus, minus, strict=True)]
    return plus[-1], minus[-1], smoothed(index, period)


def position_in_range(highs: Sequence[float], lows: Sequence[float], close: float) -> float:
    """Where the close lies between the lowest low (0) and the highest high (1)."""
    return over(close - min(lows), max(highs) - min(lows))


def stochastic(
    highs: Sequence[float],
    lows: Sequence[float],
    closes: Sequence[float],
    period: int,
    smooth_k: int,
    smooth_d: int,
) -> tuple[float, float]:
    """Slow %K and %D, smoothed by simple means."""

    def fast_k(end: int) -> float:
        span = slice(end - period, end)
        return 100.0 * position_in_range(highs[span], lows[span], closes[end - 1])

    def slow_k(end: int) -> float:
        return mean([fast_k(end - back) for back in range(smooth_k)])

    end = len(closes)
    return slow_k(end), mean([slow_k(end - back) for back in range(smooth_d)])


def williams(
    highs: Sequence[float], lows: Sequence[float], closes: Sequence[float], period: int
) -> float:
    """%R: 0 at the highest high, -100 at the lowest low, 0 where they are one."""
    highest, lowest = max(highs[-period:]), min(lows[-period:])
    return -100.0 * over(highest - closes[-1], highest - lowest)


def commodity_channel(
    highs: Sequence[float], lows: Sequence[float], closes: Sequence[float], period: int
) -> float:
    """CCI: the typical price against its mean, in units of 0.015 mean absolute deviations."""
    typical = [mean(bar) for bar in zip(highs, lows, closes, strict=True)][-period:]
    centre = mean(typical)
    spread = mean([abs(price - centre) for price in typical])
    return over(typical[-1] - centre, 0.015 * spread)


def least_squares(values: Sequence[float]) -> tuple[float, float]:
    """Slope per bar, and R squared, of the line through equidistant values."""
    middle, centre = mean(range(len(values))), mean(values)
    both = math.fsum((x - middle) * (y - centre) for x, y in enumerate(values))
    along = math.fsum((x - middle) ** 2 for x in range(len(values)))
    across = math.fsum((y - centre) ** 2 for y in values)
    return both / along, over(both**2, along * across)
