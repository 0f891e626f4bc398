"""One stream of a live engine behind the host's agent interface: `act(observation)`.

The host's observation is flat, `lookback x columns` and six account values, oldest bar first, with
the host's own indicators, which differ from the artifact's. So the bars come from the engine, which
the host feeds, and the observation is held to them: it must be of the newest bar, and raw.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.folder import save
from hrm_runtime.errors import BadInput
from hrm_runtime.live.engine import AnyBars, LiveEngine
from hrm_runtime.live.observation import HOST_COLUMNS, Observations, require_count, require_shown
from hrm_runtime.live.stream import contradiction
from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import CANONICAL, OPENINGS, Action, Vocabulary
from hrm_runtime.market.bars import Bar, Bars

BarsOf = Callable[[], AnyBars]
AccountOf = Callable[[], Account | Mapping[str, Any]]


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
            Bars that the engine has not seen are fed to it; one that differs from what it has is
            HOLD until `engine.correct` or `engine.reset` is told of it.

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
        self._observations = Observations(columns, lookback)
        if max_lots is not None:
            require_count("max_lots", max_lots)
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
        self._max_lots = max_lots
        self._numbers = {action: int(vocabulary[action]) for action in Action}

    def __repr__(self) -> str:
        told = [" ".join(self._stream.values())]
        if self._callables:
            told.append("bars and account from callables")
        else:
            told.append(repr(self._observations))
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
        known, missed = self.engine.bars(**self._stream), bars[:-1]
        if known is not None:
            if why := contradiction(known, missed):
                raise BadInput(f"bars: {why}")
            missed = missed[int(np.searchsorted(missed.datetime, known.datetime[-1], "right")) :]
        if len(missed):
            self.engine.feed(missed, **self._stream)
        return bars.newest(), _answer("account", account_of)

    def _read(self, observation: npt.ArrayLike) -> tuple[Bar, Account | Mapping[str, Any]]:
        """The engine's newest bar, which the observation must show, and the account."""
        shown, account = self._observations.read(observation)
        newest = self.engine.newest(**self._stream)
        if newest is None:
            raise BadInput("observation: expected the engine to have bars of this stream; feed it")
        instrument = self.engine.model.contract.instrument(self._stream["instrument"])
        tick = instrument.tick_size if instrument.id else 0.0  # that of unknown ones is anybody's
        require_shown(newest, shown, tick)
        return newest, Account(**account)


def _answer(name: str, asked: Callable[[], Any]) -> Any:
    try:
        return asked()
    except Exception as error:  # a host's callable may raise whatever it likes
        raise BadInput(
            f"{name}: expected an answer of the host's callable, it raised "
            f"{type(error).__name__}: {error}"
        ) from error
