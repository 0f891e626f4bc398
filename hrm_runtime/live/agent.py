"""One stream of a live engine behind the host's agent interface: `act(observation)`.

The host's observation is flat, `lookback x columns` and six account values, oldest bar first, with
the host's own indicators, which differ from the artifact's. So the bars come from the engine, which
the host feeds, and the observation is held to them: it must be of the newest bar, and raw.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.folder import save
from hrm_runtime.errors import BadInput
from hrm_runtime.live.engine import LiveEngine
from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import CANONICAL, OPENINGS, Action, Vocabulary
from hrm_runtime.market.bars import PRICES, Bar, Bars, counted, moment, real_numbers
from hrm_runtime.market.columns import FEATURES

ACCOUNT_VALUES: Final = (
    "capital",
    "position_quantity",
    "entry_price",
    "unrealized_pnl",
    "is_position_open",
    "distance_to_trail",
)
"""The end of an observation, in order."""

STAMP: Final = "datetime_epoch"
"""What the host calls the opening time of a bar."""

HOST_COLUMNS: Final = (*PRICES, STAMP, *FEATURES[:48])
"""The columns of the host's training environment."""

BarsOf = Callable[[], Bars | Bar | Mapping[str, Any]]
AccountOf = Callable[[], Account | Mapping[str, Any]]

_LARGEST_SCORE: Final = 5.0
"""The host clips its z-scores there."""

_FLOAT32: Final = 2.0**-24
"""Of a value: at least what rounding it to float32 may have changed."""


class HRMAgent:
    """Answers `act` and `select_action` as the host's other agents do, from one stream.

    Unless the engine is strict these two and `decide` never raise: what cannot be trusted is HOLD
    and one lot. Any thread may call them.

    Args:
        engine: fed by the host with the bars of this stream.
        instrument, timeframe: of the stream.
        columns: of the host's observation, in its order, for example its frame's `columns`; the
            four prices must be among them.
        lookback: bars in an observation.
        max_lots: an opening is cut to so many.
        vocabulary: how the host numbers the actions.
        bars, account: where the host normalises what its agents see, these two give the newest
            closed bars, one or more, and the account; the observation itself is then not read.
            Bars that the engine has not seen are fed to it.

    Raises:
        UnknownInstrument, UnknownTimeframe: the engine's artifact does not allow the stream.
        BadInput: columns without a price or with a name twice, one callable without the other, a
            vocabulary without an action or with a number twice, or a count below 1.
    """

    def __init__(
        self,
        engine: LiveEngine,
        instrument: str,
        timeframe: str,
        *,
        columns: Iterable[str] = HOST_COLUMNS,
        lookback: int = 50,
        max_lots: int | None = None,
        vocabulary: Vocabulary = CANONICAL,
        bars: BarsOf | None = None,
        account: AccountOf | None = None,
    ) -> None:
        engine.model.contract.instrument(instrument)
        engine.model.contract.timeframe_seconds(timeframe)
        columns = tuple(columns)
        if missing := [name for name in PRICES if name not in columns]:
            raise BadInput(
                f"columns: expected {', '.join(PRICES)} among them, which tell what bar an "
                f"observation shows; missing {', '.join(missing)}: have the host observe prices, "
                "or give the callables bars and account"
            )
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise BadInput(f"columns: expected each name once, found {', '.join(repeated)} again")
        for name, count in (("lookback", lookback), ("max_lots", max_lots)):
            if count is not None and (type(count) is not int or count < 1):
                raise BadInput(f"{name}: expected a whole number from 1, found {count!r}")
        numbers = list(vocabulary.values())
        if (
            set(vocabulary) != set(Action)
            or len(set(numbers)) != len(Action)
            or not all(isinstance(number, int) for number in numbers)
        ):
            raise BadInput(
                "vocabulary: expected a whole number of its own for each of "
                f"{', '.join(action.name for action in Action)}; found {dict(vocabulary)}"
            )
        self._callables: tuple[BarsOf, AccountOf] | None = None
        if callable(bars) and callable(account):
            self._callables = bars, account
        elif bars is not None or account is not None:
            raise BadInput(
                f"bars, account: expected two callables or neither, found {bars!r} and {account!r}"
            )
        self.engine = engine
        self._stream = {"instrument": instrument, "timeframe": timeframe}
        self._columns = columns
        self._lookback = lookback
        self._max_lots = max_lots
        self._numbers = {action: int(vocabulary[action]) for action in Action}

    def __repr__(self) -> str:
        told = [" ".join(self._stream.values())]
        if self._callables:
            told.append("bars and account from callables")
        else:
            told.append(f"{self._lookback} bars x {len(self._columns)} columns")
        if self._max_lots is not None:
            told.append(f"max_lots {self._max_lots}")
        return f"HRMAgent({', '.join(told)})"

    def act(self, observation: npt.ArrayLike) -> tuple[int, float]:
        """The action's number and the lots, from the newest bar and the account.

        A second call with the same observation is answered from memory.

        Args:
            observation: float32 [lookback x columns + 6], raw, oldest bar first.
        """
        decision = self.decide(observation)
        quantity = decision.quantity
        if self._max_lots is not None and decision.action in OPENINGS:
            quantity = min(quantity, float(self._max_lots))
        return self._numbers[decision.action], quantity

    def select_action(self, observation: npt.ArrayLike) -> tuple[int, float]:
        """`act`."""
        return self.act(observation)

    def decide(self, observation: npt.ArrayLike) -> Decision:
        """What `act` answers, with its reason; lots as the network wants them."""
        callables = self._callables
        try:
            bar, account = self._given(*callables) if callables else self._read(observation)
        except Exception as error:  # whatever it is, the answer is HOLD
            return self.engine.refuse(error, **self._stream)
        return self.engine.decide(bar, account, **self._stream)

    def load_model(self, path: str | Path) -> None:
        """Change the artifact of the engine, for all its streams, from the next decision on.

        `engine.reload` takes a `sha256` to insist on.

        Raises:
            DoNotStart, BadInput: as `LiveEngine.reload`; the one before goes on deciding.
        """
        self.engine.reload(path)

    def save_model(self, path: str | Path) -> None:
        """Copy the artifact that decides to a new folder.

        Raises:
            BadInput: `path` exists.
            DoNotStart: the artifact's own folder is gone or was changed since it was loaded.
        """
        save(self.engine.model, path)

    def _given(
        self, bars_of: BarsOf, account_of: AccountOf
    ) -> tuple[Bar, Account | Mapping[str, Any]]:
        """The newest bar and the account from the host's callables; bars before it are fed."""
        given = _answer("bars", bars_of)
        bars = given if isinstance(given, Bars) else Bars.of_one(given)
        if not len(bars):
            raise BadInput("bars: expected at least one closed bar, found none")
        newest, missed = self.engine.newest(**self._stream), bars[:-1]
        if newest is not None:
            missed = missed[int(np.searchsorted(missed.datetime, newest.datetime, "right")) :]
        if len(missed):
            self.engine.feed(missed, **self._stream)
        return bars.newest(), _answer("account", account_of)

    def _read(self, observation: npt.ArrayLike) -> tuple[Bar, Account | Mapping[str, Any]]:
        """The engine's newest bar, which the observation must show, and the account."""
        market, account = self._parts(observation)
        newest = self.engine.newest(**self._stream)
        if newest is None:
            raise BadInput("observation: expected the engine to have bars of this stream; feed it")
        self._require_shown(newest, dict(zip(self._columns, market[-1].tolist(), strict=True)))
        return newest, Account(**dict(zip(ACCOUNT_VALUES, account.tolist(), strict=True)))

    def _parts(
        self, observation: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The bars [lookback, columns] and the account [6], all finite."""
        try:
            values = real_numbers(observation).astype(np.float64)
        except Exception as error:  # anything may be passed, and raise anything
            raise BadInput(
                f"observation: expected numbers, found {type(observation).__name__}: {error}"
            ) from error
        split = self._lookback * len(self._columns)
        if values.shape != (split + len(ACCOUNT_VALUES),):
            raise BadInput(self._other_shape(values.shape))
        market, account = values[:split].reshape(self._lookback, -1), values[split:]
        if not np.isfinite(market).all():
            bar, column = np.argwhere(~np.isfinite(market))[0].tolist()
            raise BadInput(
                f"observation: expected finite numbers, found {market[bar, column]} in column "
                f"{self._columns[column]} of bar {bar + 1} of {self._lookback}"
            )
        return market, account

    def _require_shown(self, newest: Bar, shown: Mapping[str, float]) -> None:
        """Hold the observation's last bar to the engine's, within half a tick and float32."""
        tick = self.engine.model.contract.instrument(self._stream["instrument"]).tick_size
        expected = {name: getattr(newest, name) for name in PRICES}
        if STAMP in shown:
            expected[STAMP] = newest.datetime
        found = {name: shown[name] for name in expected}
        different = [
            name
            for name, value in found.items()
            if abs(value - expected[name]) > tick / 2 + _FLOAT32 * abs(value)
        ]
        if not different:
            return
        told = (
            f"observation: expected the newest bar of the engine, {moment(newest.datetime)}, with "
            f"{_listed(expected)}; found another {', '.join(different)} in {_listed(found)}"
        )
        if max(map(abs, found.values())) <= _LARGEST_SCORE < max(expected.values()):
            raise BadInput(
                f"{told}: it looks normalised; give raw observations, or the callables bars and "
                "account"
            )
        raise BadInput(f"{told}: feed each bar before acting on it, and give columns in order")

    def _other_shape(self, shape: tuple[int, ...]) -> str:
        """What is wrong with an observation of another shape, naming columns."""
        columns, lookback, rest = len(self._columns), self._lookback, len(ACCOUNT_VALUES)
        told = (
            f"observation: expected {lookback * columns + rest} values, {lookback} bars x "
            f"{columns} columns and {rest} of the account; found "
        )
        if len(shape) != 1:
            return f"{told}shape {list(shape)}: flatten it"
        told += str(shape[0])
        wide, uneven = divmod(shape[0] - rest, lookback)
        if wide > columns and not uneven:
            absent = [name for name in (*HOST_COLUMNS, "volume") if name not in self._columns]
            named = _guess(wide - columns, absent, ["volume"], absent)
            return f"{told}, as with {named} more: name all columns of the host's frame in order"
        if wide > 0 and not uneven:
            own = [name for name in self._columns if name not in HOST_COLUMNS]
            likely = own, PRICES, [STAMP], [*PRICES, STAMP]
            named = _guess(columns - wide, self._columns, *likely)
            return (
                f"{told}, as with {named} fewer, or with the end cut off, where the newest bars "
                "and the account stand"
            )
        bars, uneven = divmod(shape[0] - rest, columns)
        if bars > 0 and not uneven:
            return f"{told}, as with {bars} bars: give lookback={bars}"
        return (
            f"{told}, which is no whole number of columns: something is cut off; at the end stand "
            f"{', '.join(ACCOUNT_VALUES)}"
        )


def _answer(name: str, asked: Callable[[], Any]) -> Any:
    try:
        return asked()
    except Exception as error:  # a host's callable may raise whatever it likes
        raise BadInput(
            f"{name}: expected an answer of the host's callable, it raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _guess(count: int, possible: Collection[str], *likely: Collection[str]) -> str:
    """So many columns, and which they may be: the first likely group of that size."""
    groups = (group for group in likely if len(group) == count and set(group) <= set(possible))
    names = next(groups, ())
    told = counted(count, "column")
    return f"{told} ({', '.join(names)}?)" if names else told


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.10g}" for name, value in values.items())
