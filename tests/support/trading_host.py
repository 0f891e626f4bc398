"""The trading process of a host, written from what is known of it, and of nothing that is ours.

Its environment, the loop of its engine, and its live service, as they are, not as they should be:
tests hold our rules, our agents and the adapter of an example to them.
"""

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BUY_LONG, SELL_SHORT, CLOSE_LONG, CLOSE_SHORT, HOLD = range(5)
"""How environment and engine read an action's number."""

STRONG_SELL, SELL, WAIT, BUY, STRONG_BUY = range(5)
"""How the live service reads it; it opens orders on SELL and BUY alone."""

BROKERAGE_ENTRY: Final = 25.0
BROKERAGE_EXIT: Final = 35.0
STOP_ATR: Final = 1.5
TARGET_ATR: Final = 3.0

ALL_IN: Final = 50
"""So many lots or more are as many as the capital affords."""

Observation = npt.NDArray[np.float32]
Stepped = tuple[Observation, float, bool, dict[str, Any]]


@dataclass(frozen=True)
class Traded:
    """An entry of the instruments file."""

    type: str
    lot_size: int
    option_premium_range: tuple[float, float] = (0.025, 0.05)


@dataclass
class Position:
    """Open; prices in currency."""

    side: int
    lots: int
    entry: float
    stop: float
    target: float
    trail: float


class Environment:
    """One account on the bars of `frame`, in the four-tuple style of old gym.

    A step moves one bar on: the trail follows its close, stop, target and trail are looked at, and
    only if none was reached the action is taken, at that close.

    Args:
        frame: columns by name, oldest bar first, in the order of the observation. Trades by `close`
            and `atr`.
        target: in one version there is none.
        own_price: one version books stop, target and trail at their own price.
        normalise: scale observations by the last 100 of them, from the tenth on.

    Attributes:
        capital: what was realised.
        happened: how often what did.
    """

    def __init__(
        self,
        frame: Mapping[str, npt.NDArray[np.float64]],
        traded: Traded,
        capital: float,
        *,
        lookback: int = 50,
        target: bool = True,
        own_price: bool = False,
        normalise: bool = False,
    ) -> None:
        self._table = np.stack(list(frame.values()), axis=1)
        self._closes, self._atr = frame["close"].tolist(), frame["atr"].tolist()
        self._traded = traded
        self._begun_with = capital
        self._lookback = lookback
        self._has_target = target
        self._own_price = own_price
        self._normalise = normalise
        self.reset()

    def reset(self) -> Observation:
        self.at = self._lookback - 1
        self.capital = self._begun_with
        self.position: Position | None = None
        self.happened: Counter[str] = Counter()
        self._seen: deque[npt.NDArray[np.float64]] = deque(maxlen=100)
        return self._observation()

    def step(self, action: object) -> Stepped:
        number, wanted = _understood(action)
        self.at += 1
        before, close = self.capital, self._closes[self.at]
        if not self._exit(close):
            self._take(number, wanted, close)
        done = self.at == len(self._closes) - 1
        return self._observation(), self.capital - before, done, {"capital": self.capital}

    @property
    def lots(self) -> int:
        """Signed."""
        return self.position.side * self.position.lots if self.position else 0

    def account(self) -> dict[str, float]:
        """The six values at the end of an observation."""
        held, price = self.position, self._closes[self.at]
        values = [self.capital, 0.0, 0.0, 0.0, 0.0, 0.0]
        if held is not None:
            away = price - held.trail if held.side > 0 else held.trail - price
            values[1:] = [
                float(self.lots),
                held.entry,
                self._gain(held, held.lots, price),
                1.0,
                max(-1.0, min(1.0, away / price)),
            ]
        names = ["capital", "position_quantity", "entry_price", "unrealized_pnl"]
        return dict(zip([*names, "is_position_open", "distance_to_trail"], values, strict=True))

    def _exit(self, close: float) -> bool:
        held = self.position
        if held is None:
            return False
        if held.side > 0:
            held.trail = max(held.trail, close - self._distance)
        else:
            held.trail = min(held.trail, close + self._distance)
        for name, price, above in (
            ("stop", held.stop, held.side < 0),
            ("target", held.target, held.side > 0),
            ("trail", held.trail, held.side < 0),
        ):
            if close >= price if above else close <= price:
                self.happened[name] += 1
                self._close(held.lots, price if self._own_price else close)
                return True
        return False

    def _take(self, number: int, wanted: int, price: float) -> None:
        affordable = self._affordable(price)
        lots = affordable if wanted >= ALL_IN else min(wanted, affordable)
        side = {BUY_LONG: 1, SELL_SHORT: -1}.get(number)
        opens = side is not None and self.position is None
        closes = self.lots * {CLOSE_LONG: 1, CLOSE_SHORT: -1}.get(number, 0) > 0
        if (opens or closes) and lots < 1:
            self.happened[f"{'opening' if opens else 'closing'} skipped"] += 1
        elif side is not None and opens:
            self.happened["opening cut"] += lots < wanted < ALL_IN
            self.happened["all in"] += wanted >= ALL_IN
            self._open(side, lots, price)
        elif self.position is not None and closes:
            self.happened["partial"] += lots < self.position.lots
            self.happened["closing cut"] += affordable < min(wanted, self.position.lots)
            self.happened["closed"] += 1
            self._close(min(lots, self.position.lots), price)

    def _open(self, side: int, lots: int, price: float) -> None:
        self.happened["long" if side > 0 else "short"] += 1
        self.capital -= BROKERAGE_ENTRY
        atr = self._atr[self.at]
        self._distance = STOP_ATR * atr
        stop = price - side * self._distance
        away = TARGET_ATR * atr if self._has_target else math.inf
        self.position = Position(side, lots, price, stop, price + side * away, trail=stop)

    def _close(self, lots: int, price: float) -> None:
        held = self.position
        assert held is not None
        self.capital += self._gain(held, lots, price) - BROKERAGE_EXIT
        held.lots -= lots
        if not held.lots:
            self.position = None

    def _gain(self, held: Position, lots: int, price: float) -> float:
        points = price - held.entry if held.side > 0 else held.entry - price
        return points * (lots * self._traded.lot_size)

    def _affordable(self, price: float) -> int:
        cost = price
        if self._traded.type == "index":
            cost *= sum(self._traded.option_premium_range) / 2
        cost *= self._traded.lot_size
        return max(math.floor((self.capital - BROKERAGE_ENTRY) / cost), 0)

    def _observation(self) -> Observation:
        shown = self._table[self.at + 1 - self._lookback : self.at + 1]
        values = np.concatenate((shown.ravel(), list(self.account().values())))
        self._seen.append(values)
        if self._normalise and len(self._seen) >= 10:
            seen = np.array(self._seen)
            deviation = seen.std(axis=0)
            values = (values - seen.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
            values = np.clip(values, -5.0, 5.0)
        return values.astype(np.float32)


def frame_of(
    bars: Any, columns: Sequence[str], atr: npt.ArrayLike = 0.3
) -> dict[str, npt.NDArray[np.float64]]:
    """Its frame of `bars`: prices, stamps and `atr` as they are, other columns 40, 41, ..."""
    known = {name: getattr(bars, name) for name in ("open", "high", "low", "close")}
    known |= {"datetime_epoch": bars.datetime, "atr": atr}
    return {
        name: np.broadcast_to(np.asarray(known.get(name, 40.0 + place), float), len(bars))
        for place, name in enumerate(columns)
    }


def _understood(action: object) -> tuple[int, int]:
    """A list or tuple of two; whatever else is HOLD, and no number of lots is one."""
    if not isinstance(action, list | tuple) or len(action) != 2:
        return HOLD, 1
    number, quantity = action
    return int(number), 1 if math.isnan(quantity) else int(quantity)


def backtest(environment: Environment, agent: Any) -> list[float]:
    """What the engine does: the capital at the beginning and after each step."""
    observation, done = environment.reset(), False
    capital = [environment.capital]
    while not done:
        action, quantity = agent.select_action(observation)
        observation, _, done, told = environment.step([action, quantity])
        capital.append(told["capital"])
    return capital


class LiveService:
    """Asks twice per tick, opens orders, and hands the same number to its own environment.

    Attributes:
        orders: what went out.
    """

    def __init__(self, agent: Any, environment: Any) -> None:
        self.orders: list[tuple[str, int]] = []
        self._agent = agent
        self._environment = environment
        self._observation = environment.reset()

    def tick(self) -> bool:
        """Whether there are bars left."""
        action, _ = self._agent.act(self._observation)
        _, quantity = self._agent.act(self._observation)
        if action in (SELL, BUY):
            self.orders.append(("BUY" if action == BUY else "SELL", round(quantity)))
        self._observation, _, done, _ = self._environment.step([action, quantity])
        return not done
