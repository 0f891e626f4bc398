from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest
from reference_indicators import reference_row
from synthetic import random_bars

from hrm_runtime import Bars, TooFewBars
from hrm_runtime.market.columns import FEATURES, HISTORY_BARS
from hrm_runtime.market.features import Row, row, rows

HISTORY = 200
PRICES = ("open", "high", "low", "close")

FLOAT32_RTOL = 1e-6
"""Relative. Rounding to float32 alone costs up to 6e-8; the rest is float64 in another order."""


def from_closes(closes: npt.ArrayLike, reach: float = 0.0) -> Bars:
    """Bars that open at the last close and reach beyond their body by a fraction `reach`."""
    close = np.array(closes, dtype=np.float64)
    opening = np.concatenate((close[:1], close[:-1]))
    return Bars(
        1_700_000_100 + 300 * np.arange(len(close)),
        opening,
        np.maximum(opening, close) * (1 + reach),
        np.minimum(opening, close) * (1 - reach),
        close,
    )


def scaled(bars: Bars, factor: float) -> Bars:
    return Bars(bars.datetime, *(factor * getattr(bars, name) for name in PRICES))


def feature(found: Row, name: str) -> float:
    return float(found.values[FEATURES.index(name)])


def assert_equal(found: Row, expected: Row) -> None:
    """Bit for bit."""
    np.testing.assert_array_equal(found.values, expected.values, strict=True)
    assert (found.datetime, found.close, found.atr) == (
        expected.datetime,
        expected.close,
        expected.atr,
    )


def gapped() -> Bars:
    """Five quiet days of sixty bars; every morning opens 2 % away."""
    days = [random_bars(60, seed=day, price=100.0 * 1.02**day) for day in range(5)]
    stamps = np.concatenate([day.datetime + 86_400 * n for n, day in enumerate(days)])
    return Bars(stamps, *(np.concatenate([getattr(d, name) for d in days]) for name in PRICES))


def tick_noise() -> Bars:
    """An index that only flips by one tick: ties, tiny ranges and large prices at once."""
    flips = np.random.default_rng(5).integers(0, 2, 260)
    return from_closes((23_500 + 0.05 * flips).round(2))


def tick_walk() -> Bars:
    """An index on a grid of five paise: highs and lows often move equally far."""
    rng = np.random.default_rng(5)
    close = 23_500 + 0.05 * rng.integers(-9, 10, 260).cumsum()
    opening = np.concatenate((close[:1], close[:-1]))
    reach = 0.05 * rng.integers(0, 5, (2, 260))
    return Bars(
        1_700_000_100 + 300 * np.arange(260),
        opening.round(2),
        (np.maximum(opening, close) + reach[0]).round(2),
        (np.minimum(opening, close) - reach[1]).round(2),
        close.round(2),
    )


SERIES = {
    "stock": (random_bars(HISTORY + 40, seed=1), HISTORY),
    "index": (random_bars(HISTORY + 40, seed=2, price=23_500.0), HISTORY),
    "long history": (random_bars(HISTORY_BARS + 20, seed=3, seconds=900), HISTORY_BARS),
    "gapped": (gapped(), 250),
    "a few ticks": (tick_walk(), HISTORY),
    "all up": (from_closes(1.003 ** np.arange(230), reach=0.0002), HISTORY),
    "all down": (from_closes(0.997 ** np.arange(230), reach=0.0002), HISTORY),
    "penny": (scaled(random_bars(HISTORY + 10, seed=4), 1e-10), HISTORY),
}


# values


@pytest.fixture(scope="module", params=SERIES, ids=list(SERIES))
def found_and_expected(
    request: pytest.FixtureRequest,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Every row of a series by the library, and by the independent formulas: [rows, F] each."""
    bars, history = SERIES[request.param]
    expected = []
    for end in range(history, len(bars) + 1):
        part = bars[end - history : end]
        named = reference_row(
            int(part.datetime[-1]), *(getattr(part, name).tolist() for name in PRICES)
        )
        assert named.keys() == set(FEATURES)
        expected.append([named[name] for name in FEATURES])
    return np.stack([found.values for found in rows(bars, history)]), np.array(expected)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_equals_its_published_definition(
    name: str,
    found_and_expected: tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]],
) -> None:
    found, expected = found_and_expected
    column = FEATURES.index(name)
    np.testing.assert_allclose(found[:, column], expected[:, column], rtol=FLOAT32_RTOL, atol=1e-9)


def test_a_row_carries_its_bar_s_stamp_close_and_atr_in_currency() -> None:
    bars = random_bars(HISTORY, seed=6, price=23_500.0)
    found = row(bars, HISTORY)
    assert (found.datetime, found.close) == (bars.datetime[-1], bars.close[-1])
    assert found.atr == pytest.approx(feature(found, "atr") * found.close, rel=FLOAT32_RTOL)
    assert found.values.dtype == np.float32


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2025, 1, 10, 3, 45, tzinfo=UTC),  # a Friday, 09:15 in India
        datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
        datetime(2023, 11, 13, 0, 0, tzinfo=UTC),  # a Monday
        datetime(1971, 1, 4, 0, 0, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, tzinfo=UTC),  # a Sunday
        datetime(2100, 7, 31, 6, 30, 15, tzinfo=UTC),
    ],
    ids=str,
)
def test_time_of_day_and_day_of_week_are_those_of_the_opening_stamp(moment: datetime) -> None:
    stamps = int(moment.timestamp()) - 60 * np.arange(HISTORY)[::-1]
    bars = random_bars(HISTORY)
    found = row(Bars(stamps, *(getattr(bars, name) for name in PRICES)), HISTORY)
    midnight = moment.replace(hour=0, minute=0, second=0)
    assert feature(found, "time_of_day") == np.float32((moment - midnight).total_seconds() / 86_400)
    assert feature(found, "day_of_week") == np.float32(moment.weekday() / 7)


# a function of exactly the last history_bars bars


def test_rows_map_row_over_the_bars_that_have_their_history() -> None:
    bars = random_bars(HISTORY + 9, seed=7)
    found = rows(bars, HISTORY)
    assert len(found) == 10
    for end, one in enumerate(found, start=HISTORY):
        assert_equal(one, row(bars[:end], HISTORY))


def test_the_default_history_is_that_of_the_columns() -> None:
    bars = random_bars(HISTORY_BARS + 1, seed=8)
    assert_equal(row(bars), row(bars, HISTORY_BARS))
    assert len(rows(bars)) == 2


def test_the_future_changes_nothing_in_the_past() -> None:
    bars = random_bars(HISTORY + 20, seed=9)
    other = random_bars(HISTORY + 20, seed=10, price=5.0)
    cut = HISTORY + 10
    changed = Bars(
        bars.datetime,
        *(
            np.concatenate((getattr(bars, name)[:cut], getattr(other, name)[cut:]))
            for name in PRICES
        ),
    )
    past = rows(bars[:cut], HISTORY)
    for one, two, three in zip(past, rows(bars, HISTORY), rows(changed, HISTORY), strict=False):
        assert_equal(one, two)
        assert_equal(one, three)


@pytest.mark.parametrize("history", [HISTORY, 317, HISTORY_BARS])
def test_what_lies_before_the_history_changes_nothing(history: int) -> None:
    bars = random_bars(history + 50, seed=11)
    assert_equal(row(bars, history), row(bars[-history:], history))


def test_the_oldest_bar_of_the_history_is_still_seen() -> None:
    bars = random_bars(HISTORY + 1, seed=12)
    assert feature(row(bars, HISTORY), "ema_200") != feature(row(bars, HISTORY + 1), "ema_200")


def test_volume_is_not_read() -> None:
    bars = random_bars(HISTORY, seed=13)
    columns = (bars.datetime, *(getattr(bars, name) for name in PRICES))
    assert_equal(row(Bars(*columns, volume=np.arange(HISTORY)), HISTORY), row(bars, HISTORY))


# scale


@pytest.mark.parametrize("power", [-20, -1, 1, 13])
def test_a_power_of_two_on_all_prices_changes_no_bit(power: int) -> None:
    bars, factor = random_bars(HISTORY + 10, seed=14), 2.0**power
    for one, two in zip(rows(bars, HISTORY), rows(scaled(bars, factor), HISTORY), strict=True):
        np.testing.assert_array_equal(one.values, two.values, strict=True)
        assert (two.close, two.atr) == (factor * one.close, factor * one.atr)


def test_any_other_factor_changes_rounding_alone() -> None:
    bars = random_bars(HISTORY, seed=15)
    continuous = from_closes(bars.close * (1 + 1e-6 * np.random.default_rng(1).random(HISTORY)))
    one, two = row(continuous, HISTORY), row(scaled(continuous, 237.3), HISTORY)
    np.testing.assert_allclose(one.values, two.values, rtol=FLOAT32_RTOL, atol=1e-9, strict=True)


# series at the edge

ZERO_WHEN_FLAT = (
    *(name for name in FEATURES if name.startswith(("sma_", "ema_", "bb_"))),
    *("macd", "macd_signal", "macd_histogram", "rsi_14", "rsi_21", "stoch_k", "stoch_d"),
    *("williams_r", "cci", "adx", "di_plus", "di_minus", "momentum_10", "roc_10", "trix", "atr"),
    *("trend_slope", "trend_strength", "trend_direction", "price_change", "price_change_abs"),
    *("hl_range", "body_size", "upper_shadow", "lower_shadow", "price_vs_sma_20"),
    *("price_vs_ema_20", "volatility_10", "volatility_20", "open", "high", "low", "log_return"),
)


def test_all_but_the_clock_are_zero_when_flat() -> None:
    assert set(FEATURES) - set(ZERO_WHEN_FLAT) == {"time_of_day", "day_of_week"}


@pytest.mark.parametrize("price", [0.05, 1 / 3, 100.0, 23_551.9, 1e12])
@pytest.mark.parametrize("name", ZERO_WHEN_FLAT)
def test_a_series_that_stands_still_gives_exact_zeros(name: str, price: float) -> None:
    found = row(from_closes(np.full(HISTORY, price)), HISTORY)
    assert feature(found, name) == 0.0
    assert found.atr == 0.0


def extreme(seed: int) -> Bars:
    """Prices anywhere between the two limits, from one bar to the next."""
    closes = 10.0 ** np.random.default_rng(seed).uniform(-12, 12, HISTORY + 30)
    return from_closes(closes)


def one_jump(prices: tuple[float, float]) -> Bars:
    return from_closes(np.repeat(prices, (HISTORY, 30)))


@pytest.mark.parametrize(
    "bars",
    [
        pytest.param(gapped(), id="gapped"),
        pytest.param(tick_noise(), id="one tick of noise"),
        pytest.param(extreme(0), id="extreme"),
        pytest.param(extreme(1), id="extreme again"),
        pytest.param(one_jump((1e-12, 1e12)), id="from the least to the greatest"),
        pytest.param(one_jump((1e12, 1e-12)), id="from the greatest to the least"),
        pytest.param(from_closes(np.tile([1e-12, 1e12], 110)), id="to and fro"),
        pytest.param(from_closes(1.2 ** np.arange(-150, 150)), id="all up"),
        pytest.param(from_closes(1.2 ** -np.arange(-150.0, 150.0)), id="all down"),
        pytest.param(from_closes(1 + 2**-52 * np.arange(240)), id="one unit in the last place"),
    ],
)
def test_series_at_the_edge_give_finite_values_within_their_bounds(bars: Bars) -> None:
    values = np.stack([found.values for found in rows(bars, HISTORY)])
    assert np.isfinite(values).all()
    named = dict(zip(FEATURES, values.T, strict=True))
    for name in ("rsi_14", "rsi_21", "stoch_k", "stoch_d", "adx", "di_plus", "di_minus"):
        assert named[name].min() >= -1e-4
        assert named[name].max() <= 100 + 1e-4
    for name in ("trend_direction", "sma_5_20_cross", "sma_10_50_cross"):
        assert set(np.unique(named[name])) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(("growth", "side"), [(1.003, 1.0), (0.997, -1.0)], ids=["up", "down"])
def test_a_trend_shows_its_direction(growth: float, side: float) -> None:
    found = row(from_closes(growth ** np.arange(HISTORY)), HISTORY)
    for name in ("trend_direction", "sma_5_20_cross", "sma_10_50_cross"):
        assert feature(found, name) == side
    for name in ("macd", "momentum_10", "trend_slope", "price_change", "price_vs_sma_20"):
        assert np.sign(feature(found, name)) == side
    assert feature(found, "rsi_14") == pytest.approx(100.0 if side > 0 else 0.0, abs=1e-5)
    assert feature(found, "trend_strength") == pytest.approx(1.0, abs=1e-3)


# refusal


@pytest.mark.parametrize("function", [row, rows])
def test_too_few_bars_are_refused(
    function: Callable[[Bars, int], object],
) -> None:
    with pytest.raises(TooFewBars, match="at least 200 for one row, found 199"):
        function(random_bars(HISTORY - 1), HISTORY)


@pytest.mark.parametrize("function", [row, rows])
def test_a_history_too_short_for_its_indicators_is_refused(
    function: Callable[[Bars, int], object],
) -> None:
    with pytest.raises(ValueError, match="history_bars: expected at least 200, was 199"):
        function(random_bars(HISTORY), HISTORY - 1)
