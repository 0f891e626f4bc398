"""How one decision came about: what every step of every segment changed, and what it led to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.segments import decisions
from hrm_runtime.market.account import Account
from hrm_runtime.market.bars import Bars
from hrm_runtime.market.features import rows
from hrm_runtime.market.stamps import moment


@dataclass(frozen=True, eq=False)
class Segment:
    """One pass of the graph.

    Attributes:
        l_residual: float32 [N, T], RMS change of z_L at each step of each cycle.
        h_residual: float32 [N], RMS change of z_H at the end of each cycle.
        decision: what it would have been, had this segment been the last.
    """

    l_residual: npt.NDArray[np.float32]
    h_residual: npt.NDArray[np.float32]
    decision: Decision

    def __repr__(self) -> str:
        steps, cycles = self.l_residual[-1, -1], self.h_residual[-1]
        return f"Segment(change of L {steps:.2g}, of H {cycles:.2g}, {self.decision!r})"


@dataclass(frozen=True, eq=False)
class Trace:
    """The decision at the close of the newest bar, and the segments it took.

    Attributes:
        instrument, timeframe: names.
        datetime: stamp of that bar.
        close: its close, in currency.
        account: at that close.
        decision: what `Model.decide` answers; that of the last segment.
        segments: in the order they ran.
    """

    instrument: str
    timeframe: str
    datetime: int
    close: float
    account: Account
    decision: Decision
    segments: tuple[Segment, ...]

    def __repr__(self) -> str:
        stream, bar = f"{self.instrument} {self.timeframe}", moment(self.datetime)
        return f"Trace({stream}, bar of {bar}, {self.decision!r})"

    @property
    def halted(self) -> bool:
        """Whether it stopped by itself, q_halt above q_continue, rather than at the limit."""
        halt, go_on = self.decision.q_values
        return halt > go_on


def trace(
    model: Model,
    bars: Bars | Mapping[str, Any],
    account: Account | Mapping[str, Any],
    *,
    instrument: str,
    timeframe: str,
) -> Trace:
    """What `model.decide` does with these arguments, step by step.

    Raises:
        TooFewBars, BadBars, BadAccount, UnknownInstrument, UnknownTimeframe, InferenceFailed: as
            `Model.decide`.
    """
    bars, account = bars if isinstance(bars, Bars) else Bars.of(bars), Account.of(account)
    decision = model.decide(bars, account, instrument=instrument, timeframe=timeframe)
    contract = model.contract
    window = rows(bars[len(bars) - contract.bars_needed :], contract.features.history_bars)
    passes = model.run_segments(
        *model.inputs(window, account, instrument=instrument, timeframe=timeframe)
    )
    return Trace(
        instrument=instrument,
        timeframe=timeframe,
        datetime=window[-1].datetime,
        close=window[-1].close,
        account=account,
        decision=decision,
        segments=tuple(
            Segment(
                l_residual=outputs["l_residual"][0],
                h_residual=outputs["h_residual"][0],
                decision=decisions(
                    passes[: number + 1], [account], model.id, unknown=[decision.unknown]
                )[0],
            )
            for number, outputs in enumerate(passes)
        ),
    )
