"""Training tensors with a planted rule, whose best attainable accuracy is known.

The signs of a feature at three bars of the window, up to nine bars back, add up; which features
these are depends on the instrument; a value of the account is added. What is best follows from the
sum and the side:

    flat: BUY_LONG above 1, SELL_SHORT below -1, HOLD between     long, short: close against it

A share `NOISE` of the labels is another legal action, drawn at random, so that knowing the rule
is right in 1 - NOISE of all cases, and nothing can do better.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import LEGAL, Action, Side
from hrm_runtime.market.columns import ACCOUNT, FEATURES
from hrm_train.data.prepared import Manifest, Prepared, Series
from hrm_train.data.vocabulary import Vocabulary
from hrm_train.settings import Settings

NOISE: Final = 0.1
ATTAINABLE: Final = 1.0 - NOISE
INSTRUMENTS: Final = ("Alpha", "Beta", "Delta", "Gamma")
TIMEFRAME: Final = "5"
LAGS: Final = (0, 4, 9)
SIGNALS: Final = (("rsi_14", "macd", "atr"), ("roc_10", "cci", "adx"))
"""The feature read at each lag, by whether the instrument's id is even or odd."""

VARYING: Final = [FEATURES.index(name) for name in (*SIGNALS[0], *SIGNALS[1], "trix", "bb_width")]
"""Features that vary, two of them in vain; the others stand still."""

ACCOUNT_SIGNAL: Final = 3
SECONDS: Final = 300


def planted(settings: Settings, bars: int, seed: int) -> Prepared:
    """Series of `bars` bars with a sample each, one series per instrument."""
    rng = np.random.default_rng(seed)
    names = [(name, TIMEFRAME) for name in INSTRUMENTS]
    vocabulary = Vocabulary.of(settings, names)
    config = settings.network.input
    horizon = settings.training.label_horizon
    first_bar = config.history_bars - 1
    lead = max(config.window - 1, horizon)
    rows_each = bars - first_bar
    newest = np.arange(lead, rows_each - horizon)
    parts: list[dict[str, npt.NDArray[np.generic]]] = []
    for number, (name, _) in enumerate(names):
        identity = vocabulary.instruments[name].id
        stamps = SECONDS * np.arange(bars)
        price = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, bars)))
        features = np.zeros((rows_each, len(FEATURES)), dtype=np.float32)
        shape = (rows_each, len(VARYING))
        features[:, VARYING] = rng.choice([-1.0, 1.0], size=shape) * rng.uniform(0.5, 1.5, shape)
        side = rng.integers(-1, 2, size=len(newest))
        account = rng.normal(size=(len(newest), len(ACCOUNT))).astype(np.float32)
        account[:, 0] = side
        account[:, ACCOUNT_SIGNAL] = rng.choice([-2.0, 0.0, 2.0], size=len(newest))
        best = rule(features, newest, account, identity)
        returns = np.stack(
            [
                _returns(Side(one), Action(action), rng)
                for one, action in zip(side.tolist(), best.tolist(), strict=True)
            ]
        )
        parts.append(
            {
                "bar_stamp": stamps,
                "bar_price": np.stack([price, price * 1.001, price * 0.999, price], axis=1),
                "row_bar": np.arange(first_bar, bars) + number * bars,
                "features": features,
                "sample_row": newest + number * rows_each,
                "sample_instrument": np.full(len(newest), identity),
                "sample_timeframe": np.full(len(newest), vocabulary.timeframes[TIMEFRAME].id),
                "sample_account": account,
                "sample_raw_account": np.stack(
                    [_raw_account(Side(one), price[first_bar]) for one in side.tolist()]
                ),
                "sample_returns": returns,
                "sample_lots": np.exp(account[:, 1].clip(-1, 1) + 3.0),
                "sample_end": stamps[first_bar + newest + horizon],
            }
        )
    series = [
        Series(
            instrument=name, timeframe=timeframe, bars=bars, duplicates=0, disordered=0,
            samples=len(newest), skipped=None,
        )
        for name, timeframe in names
    ]  # fmt: skip
    return Prepared(
        Manifest.of(settings, vocabulary, series),
        **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
    )


def rule(
    features: npt.NDArray[np.float32],
    newest: npt.NDArray[np.int64],
    account: npt.NDArray[np.float32],
    identity: int,
) -> npt.NDArray[np.int64]:
    """The best action of each sample of one series, before noise."""
    signs = sum(
        np.sign(features[newest - lag, FEATURES.index(name)])
        for lag, name in zip(LAGS, SIGNALS[identity % 2], strict=True)
    )
    strength = signs + account[:, ACCOUNT_SIGNAL]
    side = account[:, 0]
    flat = np.select(
        [strength > 1, strength < -1], [Action.BUY_LONG, Action.SELL_SHORT], Action.HOLD
    )
    against = np.where(side > 0, Action.CLOSE_LONG, Action.CLOSE_SHORT)
    held = np.where(strength * side < 0, against, Action.HOLD)
    return np.where(side == 0, flat, held).astype(np.int64)


def _returns(side: Side, best: Action, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """One ATR more for the best action than for the others, or, at times, for another one."""
    legal = LEGAL[side]
    if rng.random() < NOISE:
        best = rng.choice([action for action in legal if action != best])
    returns = np.full(len(Action), np.nan, dtype=np.float32)
    returns[list(legal)] = -1.0
    returns[best] = 0.0
    return returns


def _raw_account(side: Side, price: float) -> npt.NDArray[np.float64]:
    if side is Side.FLAT:
        account = Account.flat(1e6)
    else:
        account = Account(1e6, 10.0 * side, price, 0.0, True, 0.01)
    return np.array(list(vars(account).values()), dtype=np.float64)
