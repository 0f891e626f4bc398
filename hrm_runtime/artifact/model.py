"""The loaded artifact: a pure, thread-safe function from bars and account to a decision."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.contract import Contract, brief
from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.segments import Outputs, broken, decisions, run_segments
from hrm_runtime.artifact.session import Session, Stop
from hrm_runtime.artifact.unknown import unknown_names
from hrm_runtime.errors import BadFeatures, SelfTestFailed, TooFewBars
from hrm_runtime.market.account import Account, require_plausible, vector
from hrm_runtime.market.bars import Bars, real_numbers
from hrm_runtime.market.features import Row, rows
from hrm_runtime.market.instruments import Instrument
from hrm_runtime.market.spacing import require_spacing

Floats = npt.NDArray[np.float32]

Ids = npt.NDArray[np.int64]


class Model:
    """What `load` returns. Bad input raises; outputs that cannot be trusted are HOLD with a reason.

    It is pickled, for another process, as where it was loaded from and its id: there it is loaded.

    Attributes:
        contract: what the artifact promises.
        id: sha256 of its contract, hence of everything in it; `load(path, sha256=...)` takes it.
        folder: where it was loaded from; None where it was made otherwise.
    """

    def __init__(
        self, contract: Contract, model_id: str, session: Session, folder: Path | None = None
    ) -> None:
        self.contract = contract
        self.id = model_id
        self.folder = folder
        self._session = session
        self._expected: Outputs | None = None

    def __repr__(self) -> str:
        return f"Model({brief(self.contract, self.id)})"

    @property
    def threads(self) -> int:
        """CPU threads for one decision."""
        return self._session.threads

    def self_test(self) -> None:
        """Run the network on a window of zeros: it must answer what it answered the first time.

        Raises:
            SelfTestFailed: an output differs in a bit, or is not finite.
            InferenceFailed: onnxruntime failed.
        """
        features, names = self.contract.features, self.contract.account
        window = np.zeros((1, features.window, len(features.names)), np.float32)
        outputs = self.run(window, np.zeros((1, len(names)), np.float32), [0], [0])
        expected = self._expected = self._expected or outputs
        if broken(outputs).any():
            raise SelfTestFailed("self-test: expected finite outputs of a window of zeros")
        if different := [n for n, found in outputs.items() if (found != expected[n]).any()]:
            raise SelfTestFailed(
                f"self-test: expected the outputs of the first one, found other {different}; "
                "this machine cannot be relied on"
            )

    def decide(
        self,
        bars: Bars | Mapping[str, Any],
        account: Account | Mapping[str, Any],
        *,
        instrument: str,
        timeframe: str,
    ) -> Decision:
        """The decision at the close of the newest bar.

        It depends on the last `contract.bars_needed` bars, the account and the artifact alone.

        Args:
            bars: at least `contract.bars_needed` closed bars, as `Bars` or a mapping of columns.
            account: at that close; an `Account`, or a mapping of its values by name.
            instrument, timeframe: names; unknown ones where the contract allows them. A timeframe
                may be spelt as in `market.names.seconds_of`.

        Raises:
            TooFewBars: fewer bars than needed.
            BadBars: as `Bars`, or of another timeframe.
            BadAccount: as `Account.of`.
            UnknownInstrument, UnknownTimeframe: where the contract does not allow them, or a
                timeframe says no length.
            InferenceFailed: onnxruntime failed.
        """
        start = time.perf_counter()
        bars = bars if isinstance(bars, Bars) else Bars.of(bars)
        needed = self.contract.bars_needed
        if len(bars) < needed:
            raise TooFewBars(
                f"bars: expected at least {needed} for one decision, found {len(bars)}"
            )
        bars = bars[len(bars) - needed :]
        require_spacing(bars.datetime, self.contract.timeframe_seconds(timeframe))
        window = rows(bars, self.contract.features.history_bars)
        return self._decide(window, account, instrument, timeframe, start)

    def decide_rows(
        self,
        window: Sequence[Row],
        account: Account | Mapping[str, Any],
        *,
        instrument: str,
        timeframe: str,
    ) -> Decision:
        """`decide` on feature rows already computed: equal to it, bit for bit.

        That the bars behind them are of the timeframe is for the caller to know.

        Args:
            window: the rows of consecutive bars, oldest first; the last W are used.

        Raises:
            BadFeatures: fewer than W rows, rows made from another number of bars than the
                contract's `history_bars`, or rows whose stamps do not increase.
            BadAccount, UnknownInstrument, UnknownTimeframe, InferenceFailed: as `decide`.
        """
        return self._decide(window, account, instrument, timeframe, time.perf_counter())

    def inputs(
        self,
        window: Sequence[Row],
        account: Account | Mapping[str, Any],
        *,
        instrument: str,
        timeframe: str,
    ) -> tuple[Floats, Floats, Ids, Ids]:
        """`network_inputs` for a decision on W `window` rows, by names.

        Raises:
            BadAccount, UnknownInstrument, UnknownTimeframe: as `decide`.
        """
        return network_inputs(
            self.contract,
            window,
            Account.of(account),
            self.contract.instrument(instrument),
            self.contract.timeframe_id(timeframe),
        )

    def run(
        self,
        features: npt.ArrayLike,
        account: npt.ArrayLike,
        instrument: npt.ArrayLike,
        timeframe: npt.ArrayLike,
        z_H: npt.ArrayLike | None = None,
        z_L: npt.ArrayLike | None = None,
        stop: Stop | None = None,
    ) -> Outputs:
        """One pass of the graph. A row's outputs do not depend on the rows beside it.

        Args:
            features: float32 [B, W, F], oldest bar first.
            account: float32 [B, A], from `account.vector`.
            instrument, timeframe: int64 [B] ids.
            z_H, z_L: float32 [B or 1, S, D_H] and [B or 1, S, D_L]; the initial states if left out.
            stop: what may end the pass early.

        Returns:
            `action_type` [B, 5] logits, `quantity` [B] lots, `value` [B] ATR, `q_values` [B, 2],
            `z_H_out` [B, S, D_H], `z_L_out` [B, S, D_L], `l_residual` [B, N, T] and
            `h_residual` [B, N].

        Raises:
            BadFeatures: wrong shape or type, NaN or infinity, an id outside the contract's, or one
                state without the other.
            InferenceFailed: onnxruntime failed, or was stopped.
        """
        contract, graph = self.contract, self.contract.graph
        window = (contract.features.window, len(contract.features.names))
        feeds: dict[str, npt.NDArray[Any]] = {"features": _floats("features", features, window)}
        batch = len(feeds["features"])
        feeds["account"] = _floats("account", account, (len(contract.account),), (batch,))
        known = {entry.id for entry in contract.instruments.values()}
        feeds["instrument"] = _ids("instrument", instrument, batch, known)
        known = {0, *(entry.id for entry in contract.timeframes.values())}
        feeds["timeframe"] = _ids("timeframe", timeframe, batch, known)
        if (z_H is None) != (z_L is None):
            raise BadFeatures("z_H, z_L: expected both states or neither, found one")
        if z_H is not None and z_L is not None:
            rows_allowed = (1, batch)
            feeds["z_H"] = _floats("z_H", z_H, (graph.tokens, graph.h_dim), rows_allowed)
            feeds["z_L"] = _floats("z_L", z_L, (graph.tokens, graph.l_dim), rows_allowed)
        return self._session.run(feeds, stop)

    def run_segments(
        self,
        features: npt.ArrayLike,
        account: npt.ArrayLike,
        instrument: npt.ArrayLike,
        timeframe: npt.ArrayLike,
        *,
        stop: Stop | None = None,
    ) -> list[Outputs]:
        """Passes of the graph, each from the states of the one before, as `run_segments` below."""
        run = self.run if stop is None else partial(self.run, stop=stop)
        return run_segments(
            run, features, account, instrument, timeframe, self.contract.max_segments
        )

    def _decide(
        self,
        window: Sequence[Row],
        account: Account | Mapping[str, Any],
        instrument: str,
        timeframe: str,
        start: float,
    ) -> Decision:
        account = Account.of(account)
        length = self.contract.features.window
        if len(window) < length:
            raise BadFeatures(f"rows: expected at least {length}, found {len(window)}")
        window = window[-length:]
        history = self.contract.features.history_bars
        if wrong := {row.history_bars for row in window} - {history}:
            raise BadFeatures(
                f"rows: expected features.rows(bars, history_bars={history}), found rows made "
                f"from {sorted(wrong)} bars"
            )
        stamps = np.array([row.datetime for row in window])
        if not (np.diff(stamps) > 0).all():
            raise BadFeatures("rows: expected stamps that increase, oldest bar first")
        passes = self.run_segments(
            *self.inputs(window, account, instrument=instrument, timeframe=timeframe)
        )
        latency_ms = 1e3 * (time.perf_counter() - start)
        unknown = unknown_names(self.contract, instrument, timeframe)
        return decisions(passes, [account], self.id, latency_ms, [unknown])[0]


def network_inputs(
    contract: Contract,
    window: Sequence[Row],
    account: Account,
    instrument: Instrument,
    timeframe_id: int,
) -> tuple[Floats, Floats, Ids, Ids]:
    """What the network gets for one decision, as a batch of one.

    Returns:
        features float32 [1, W, F], account float32 [1, A], instrument and timeframe int64 [1].

    Raises:
        BadAccount: as `require_plausible`, at the newest row.
    """
    require_plausible(account, window[-1].close, instrument)
    account_vector = vector(
        account,
        close=window[-1].close,
        atr=window[-1].atr,
        instrument=instrument,
        brokerage_entry=contract.trading.brokerage_entry,
        quantity_max=contract.quantity.max,
    )
    return (
        np.stack([row.values for row in window])[None],
        account_vector[None],
        np.array([instrument.id]),
        np.array([timeframe_id]),
    )


def _floats(
    name: str, value: npt.ArrayLike, shape: tuple[int, ...], batches: tuple[int, ...] | None = None
) -> Floats:
    try:
        given = real_numbers(value)
        with np.errstate(over="ignore"):  # becomes infinity, refused below
            array = np.ascontiguousarray(given, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadFeatures(f"{name}: expected numbers: {error}") from error
    wrong_batch = array.ndim > 0 and batches is not None and len(array) not in batches
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape or wrong_batch or not len(array):
        batch = " or ".join(map(str, sorted(set(batches)))) if batches else "B"
        expected = ", ".join((batch, *map(str, shape)))
        raise BadFeatures(f"{name}: expected shape [{expected}], found {list(array.shape)}")
    if not np.isfinite(array).all():
        where = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(array)))
        raise BadFeatures(f"{name}: expected finite numbers, found {array[where]} at {where}")
    return array


def _ids(name: str, value: npt.ArrayLike, batch: int, known: set[int]) -> Ids:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise BadFeatures(f"{name}: expected integers: {error}") from error
    if array.dtype.kind not in "iu" or array.shape != (batch,):
        raise BadFeatures(
            f"{name}: expected integers of shape [{batch}], found {array.dtype} {list(array.shape)}"
        )
    if unknown := set(array.tolist()) - known:
        raise BadFeatures(f"{name}: expected ids among {sorted(known)}, found {sorted(unknown)}")
    return array.astype(np.int64)
