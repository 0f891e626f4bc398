"""A decision, its reasons, and the rule that makes one from the graph's outputs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from hrm_runtime.errors import BadInput, UnknownInstrument, UnknownTimeframe, Untrusted
from hrm_runtime.market.account import Account
from hrm_runtime.market.actions import LEGAL, OPENINGS, SAFE_QUANTITY, Action
from hrm_runtime.market.bars import counted

Array = npt.NDArray[np.float32]


class Reason(StrEnum):
    """Why a decision is what it is. Anything but `ok` means HOLD."""

    OK = "ok"
    WARMING_UP = "warming_up"
    STALE = "stale"
    GAP = "gap"
    OUT_OF_ORDER = "out_of_order"
    FUTURE = "future"
    BAD_INPUT = "bad_input"
    UNKNOWN_INSTRUMENT = "unknown_instrument"
    UNKNOWN_TIMEFRAME = "unknown_timeframe"
    NON_FINITE = "non_finite"
    DEADLINE = "deadline"
    BREAKER = "breaker"
    KILLED = "killed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do at the next bar's open, and the evidence.

    Attributes:
        action: one of five; HOLD unless `reason` is ok.
        quantity: lots. Of an opening: whole lots, at least 1. Of a close: the open position.
            Of HOLD: 1.0, which means nothing; `order` leaves it out.
        value: expected best return over the label horizon, in ATR.
        probabilities: of the five actions by id; exactly 0 for those illegal on this side.
        q_values: (halt, continue), each in [0, 1].
        segments: passes of the graph that were run.
        reason: why.
        model_id: sha256 of the artifact's contract.
        latency_ms: from call to answer. Not part of equality.
        sequence: number given by the engine, 0 from `Model`. Not part of equality.
        unknown: which names the artifact was not trained on, so that it decided as for any other:
            "instrument", "timeframe", none or both. Not part of equality.

    Where `reason` is not ok nothing of the network is passed on: value, probabilities and
    q_values are 0, and `unknown` is empty.
    """

    action: Action
    quantity: float
    value: float
    probabilities: tuple[float, float, float, float, float]
    q_values: tuple[float, float]
    segments: int
    reason: Reason
    model_id: str
    latency_ms: float = field(default=0.0, compare=False)
    sequence: int = field(default=0, compare=False)
    unknown: tuple[str, ...] = field(default=(), compare=False)

    def __repr__(self) -> str:
        value = "" if self.degraded else f"value {self.value:+.2f} ATR, "
        unknown = "".join(f"unknown {kind}, " for kind in self.unknown)
        return f"Decision({self.order}, {value}{self.reason}, {unknown}id {self.model_id[:12]}...)"

    @property
    def order(self) -> str:
        """What is to be done, in words: the action, and the lots of any but HOLD."""
        if self.action is Action.HOLD:
            return self.action.name
        return f"{self.action.name} {counted(self.quantity, 'lot')}"

    @property
    def degraded(self) -> bool:
        """Whether this is the safe answer rather than the network's."""
        return self.reason is not Reason.OK


def hold(reason: Reason, model_id: str, segments: int = 0, latency_ms: float = 0.0) -> Decision:
    """The safe decision, for `reason`."""
    return Decision(
        action=Action.HOLD,
        quantity=SAFE_QUANTITY,
        value=0.0,
        probabilities=(0.0, 0.0, 0.0, 0.0, 0.0),
        q_values=(0.0, 0.0),
        segments=segments,
        reason=reason,
        model_id=model_id,
        latency_ms=latency_ms,
    )


def decision(
    outputs: Mapping[str, Array],
    row: int,
    account: Account,
    *,
    segments: int,
    model_id: str,
    latency_ms: float = 0.0,
    unknown: tuple[str, ...] = (),
) -> Decision:
    """The decision that one row of the graph's outputs stands for; HOLD if any is not finite."""
    if not all(np.isfinite(output[row]).all() for output in outputs.values()):
        return hold(Reason.NON_FINITE, model_id, segments, latency_ms)
    probabilities = softmax(outputs["action_type"][row])
    action = max(LEGAL[account.side], key=lambda legal: probabilities[legal])
    return Decision(
        action=action,
        quantity=_quantity(action, float(outputs["quantity"][row]), account),
        value=float(outputs["value"][row]),
        probabilities=probabilities,
        q_values=(float(outputs["q_values"][row, 0]), float(outputs["q_values"][row, 1])),
        segments=segments,
        reason=Reason.OK,
        model_id=model_id,
        latency_ms=latency_ms,
        unknown=unknown,
    )


def softmax(logits: Array) -> tuple[float, float, float, float, float]:
    """Probabilities of the five actions from logits [5], in float64."""
    largest = float(logits.max())
    powers = [math.exp(float(logit) - largest) for logit in logits]
    total = math.fsum(powers)
    buy, sell, close_long, close_short, wait = (power / total for power in powers)
    return buy, sell, close_long, close_short, wait


def _quantity(action: Action, predicted: float, account: Account) -> float:
    if action is Action.HOLD:
        return SAFE_QUANTITY
    if action in OPENINGS:
        return float(math.floor(max(1.0, predicted)))
    return abs(account.position_quantity)


def reason_of(error: BaseException) -> Reason:
    """Which reason an error is."""
    if isinstance(error, Untrusted) and error.reason in set(Reason):
        return Reason(error.reason)
    if isinstance(error, UnknownInstrument):
        return Reason.UNKNOWN_INSTRUMENT
    if isinstance(error, UnknownTimeframe):
        return Reason.UNKNOWN_TIMEFRAME
    return Reason.BAD_INPUT if isinstance(error, BadInput) else Reason.ERROR
