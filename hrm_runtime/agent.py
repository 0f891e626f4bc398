"""One stream of a live engine behind the host's agent interface: `act(observation)`.

The host's observation is flat, `lookback x columns` and six account values, oldest bar first, with
the host's own indicators, which differ from the artifact's. So the bars come from the engine, which
the host feeds, and the observation is held to them: it must be of the newest bar, and raw.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.account import Account
from hrm_runtime.actions import CANONICAL, Action, Vocabulary
from hrm_runtime.artifact import load, save
from hrm_runtime.bars import PRICES, Bar, Bars, moment
from hrm_runtime.columns import FEATURES
from hrm_runtime.decision import Decision
from hrm_runtime.engine import LiveEngine
from hrm_runtime.errors import BadInput

ACCOUNT_VALUES: Final = (
    "capital",
    "position_quantity",
    "entry_price",
    "unrealized_pnl",
    "is_position_open",
    "distance_to_trail",
)
"""The end of an observation, in order."""

HOST_COLUMNS: Final = (*PRICES, "datetime_epoch", *FEATURES[:48])
"""The columns of the host's training environment."""

_LARGEST_SCORE: Final = 5.0
"""The host clips its z-scores there."""


class HRMAgent:
    """Answers `act` and `select_action` as the host's other agents do, from one stream.

    Unless the engine is strict no call raises: what cannot be trusted is HOLD and one lot.

    Args:
        engine: fed by the host with the bars of this stream.
        instrument, timeframe: of the stream.
        columns: of the host's observation, in its order; the four prices must be among them.
        lookback: bars in an observation.
        max_lots: an opening is cut to so many.
        vocabulary: how the host numbers the actions.
        bars, account: where the host normalises what its agents see, these two give the newest
            closed bars, one or more, and the account; the observation itself is then not read.

    Raises:
        BadInput: columns without a price or with a name twice, one callable without the other, a
            vocabulary without an action or with a number twice, or a count below 1.
    """

    def __init__(
        self,
        engine: LiveEngine,
        instrument: str,
        timeframe: str,
        *,
        columns: Sequence[str] = HOST_COLUMNS,
        lookback: int = 50,
        max_lots: int | None = None,
        vocabulary: Vocabulary = CANONICAL,
        bars: Callable[[], Bars | Bar | Mapping[str, Any]] | None = None,
        account: Callable[[], Account | Mapping[str, Any]] | None = None,
    ) -> None:
        columns = tuple(columns)
        if missing := [name for name in PRICES if name not in columns]:
            raise BadInput(f"columns: expected {', '.join(PRICES)}; missing {', '.join(missing)}")
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise BadInput(f"columns: expected each name once, found {', '.join(repeated)} again")
        if (bars is None) != (account is None):
            raise BadInput("bars, account: expected both callables or neither")
        if set(vocabulary) != set(Action) or len(set(vocabulary.values())) != len(Action):
            raise BadInput(f"vocabulary: expected a number of its own for each of {list(Action)}")
        for name, count in (("lookback", lookback), ("max_lots", max_lots)):
            if count is not None and (type(count) is not int or count < 1):
                raise BadInput(f"{name}: expected at least 1, found {count!r}")
        self.engine = engine
        self._stream = {"instrument": instrument, "timeframe": timeframe}
        self._columns = columns
        self._lookback = lookback
        self._max_lots = max_lots
        self._vocabulary = vocabulary
        self._bars = bars
        self._account = account

    def act(self, observation: npt.ArrayLike) -> tuple[int, float]:
        """The action's number and the lots, from the newest bar and the account.

        A second call with the same observation is answered from memory.

        Args:
            observation: float32 [lookback x columns + 6], raw, oldest bar first.
        """
        decision = self.decide(observation)
        quantity = decision.quantity
        if self._max_lots is not None and decision.action in (Action.BUY_LONG, Action.SELL_SHORT):
            quantity = min(quantity, float(self._max_lots))
        return int(self._vocabulary[decision.action]), float(quantity)

    def select_action(self, observation: npt.ArrayLike) -> tuple[int, float]:
        """`act`."""
        return self.act(observation)

    def decide(self, observation: npt.ArrayLike) -> Decision:
        """What `act` answers, with its reason; lots as the network wants them."""
        try:
            bar, account = self._given() if self._bars else self._read(observation)
        except Exception as error:  # a host's callables may raise whatever they like
            return self.engine.refuse(
                error if isinstance(error, BadInput) else _unreadable(error), **self._stream
            )
        return self.engine.decide(bar, account, **self._stream)

    def load_model(self, path: str | Path) -> None:
        """Decide with another artifact from now on: the engine's, for all its streams.

        Raises:
            DoNotStart, BadInput: as `load` and `LiveEngine.use`; the one before goes on deciding.
        """
        self.engine.use(load(path))

    def save_model(self, path: str | Path) -> None:
        """Copy the artifact that decides to a new folder.

        Raises:
            BadInput: `path` exists.
            DoNotStart: the artifact's own folder is gone or was changed since it was loaded.
        """
        save(self.engine.model, path)

    def _given(self) -> tuple[Bar, Account | Mapping[str, Any]]:
        """The newest bar and the account from the host's callables; older bars are fed."""
        assert self._bars is not None
        assert self._account is not None
        given = self._bars()
        bars = given if isinstance(given, Bars) else Bars.of_one(given)
        if not len(bars):
            raise BadInput("bars: expected at least one closed bar, found none")
        newest = self.engine.newest(**self._stream)
        missed = bars[:-1]
        if newest is not None:
            missed = missed[int(np.searchsorted(missed.datetime, newest.datetime, "right")) :]
        if len(missed):
            self.engine.feed(missed, **self._stream)
        return bars.newest(), self._account()

    def _read(self, observation: npt.ArrayLike) -> tuple[Bar, Account]:
        """The engine's newest bar, which the observation must show, and the account."""
        values = np.asarray(observation, dtype=np.float64)
        expected = self._lookback * len(self._columns) + len(ACCOUNT_VALUES)
        if values.shape != (expected,):
            raise BadInput(self._other_width(values.shape, expected))
        newest = self.engine.newest(**self._stream)
        if newest is None:
            raise BadInput("observation: expected bars to be fed to the engine, found none")
        last = values[-len(ACCOUNT_VALUES) - len(self._columns) : -len(ACCOUNT_VALUES)]
        shown = {name: float(last[self._columns.index(name)]) for name in PRICES}
        tick = self.engine.model.contract.instrument(self._stream["instrument"]).tick_size
        different = [
            name
            for name, found in shown.items()
            if not abs(found - getattr(newest, name)) <= tick / 2 + np.spacing(np.float32(found))
        ]
        if different:
            raise BadInput(_other_bar(newest, shown, different))
        account = dict(zip(ACCOUNT_VALUES, values[-len(ACCOUNT_VALUES) :].tolist(), strict=True))
        return newest, Account(**account)

    def _other_width(self, shape: tuple[int, ...], expected: int) -> str:
        """What is wrong with an observation of another shape, naming columns."""
        columns = len(self._columns)
        told = (
            f"observation: expected {expected} values, {self._lookback} x {columns} columns and "
            f"{len(ACCOUNT_VALUES)} of the account; found shape {list(shape)}"
        )
        if len(shape) != 1:
            return told
        found, rest = divmod(shape[0] - len(ACCOUNT_VALUES), self._lookback)
        if rest:
            return f"{told}, not a whole number of columns: its beginning or end is cut off"
        if found > columns:
            absent = [n for n in (*HOST_COLUMNS, "volume") if n not in self._columns]
            return f"{told}: {_guess(found - columns, [['volume'], absent], absent)} too many"
        own = [name for name in self._columns if name not in HOST_COLUMNS]
        likely = [own, PRICES, ["datetime_epoch"]]
        return f"{told}: {_guess(columns - found, likely, self._columns)} missing"


def _guess(count: int, likely: Sequence[Sequence[str]], possible: Sequence[str]) -> str:
    """Which `count` columns: the first likely group of so many that is possible, if one is."""
    for group in likely:
        if len(group) == count and set(group) <= set(possible):
            return f"{count} ({', '.join(group)}?)"
    return str(count)


def _other_bar(newest: Bar, shown: Mapping[str, float], different: Sequence[str]) -> str:
    told = (
        f"observation: expected the newest bar of the engine, {moment(newest.datetime)} "
        f"{newest[1:5]}; found another {', '.join(different)} in {tuple(shown.values())}"
    )
    if max(map(abs, shown.values())) <= _LARGEST_SCORE < newest.close:
        return (
            f"{told}: it looks normalised; give raw observations, or the callables bars and account"
        )
    return f"{told}: feed each bar before acting on it, and look at the order of columns"


def _unreadable(error: Exception) -> BadInput:
    refused = BadInput(f"observation: expected numbers, found {type(error).__name__}: {error}")
    refused.__cause__ = error
    return refused
