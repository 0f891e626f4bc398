"""Choosing golden vectors: held-out windows whose decision rounding cannot turn."""

from dataclasses import replace
from typing import Final

import numpy as np

from hrm_export.comparison import top_two_gap
from hrm_export.inputs import Inputs, window_inputs
from hrm_runtime.actions import Side
from hrm_runtime.contract import LEAST_WINDOWS, Contract
from hrm_runtime.golden import WITH_BARS, Golden
from hrm_runtime.model import Ids, Run, decisions, run_segments
from hrm_train.errors import DataInvalid
from hrm_train.windows import Windows, concatenate, round_robin

CLEAR_GAP: Final = 0.05
SAFE_GAP: Final = 0.2
CLEAR_HALT: Final = 0.02
CLEAR_LOTS: Final = 1e-2
"""How far a golden window stays from a tie, a changed segment count and a whole number of lots."""

UNKNOWN_WINDOWS: Final = 4
"""How many windows pretend not to know their instrument."""


def make_golden(reference: Run, contract: Contract, known: Windows, inputs: Inputs) -> Golden:
    """Golden vectors over all sides and instruments, clear-cut ones first.

    Args:
        reference: whose outputs are expected: torch, computing as the artifact does.
        contract: of the artifact.
        known: windows to choose from.
        inputs: theirs, from `window_inputs`.

    Raises:
        DataInvalid: too few windows.
    """
    unknown = replace(known, instrument=np.zeros_like(known.instrument))
    count = LEAST_WINDOWS - UNKNOWN_WINDOWS
    if len(known) < count:
        raise DataInvalid(
            f"expected at least {count} windows for golden vectors, found {len(known)}"
        )
    named = _choose(reference, contract, known, inputs)[:count]
    nameless = _choose(reference, contract, unknown, window_inputs(contract, unknown))
    picked = concatenate(known[named], unknown[nameless[:UNKNOWN_WINDOWS]])
    stored = window_inputs(contract, picked)
    passes = run_segments(reference, *stored.arrays, contract.max_segments)
    made = decisions(passes, stored.accounts, "")
    return Golden(
        features=stored.features,
        account=stored.account,
        instrument=stored.instrument,
        timeframe=stored.timeframe,
        raw_account=picked.accounts,
        passes=tuple(passes),
        actions=np.array([int(decision.action) for decision in made]),
        segments=np.array([decision.segments for decision in made]),
        quantities=np.array([decision.quantity for decision in made]),
        bars=np.concatenate(
            (picked.stamps[:WITH_BARS, None].astype(np.float64), picked.prices[:WITH_BARS]), axis=1
        ),
    )


def _choose(reference: Run, contract: Contract, windows: Windows, inputs: Inputs) -> Ids:
    """An order of the windows: sides in turn; within a side clear gaps first, then what else is
    clear, with instruments and timeframes in turn.
    """
    passes = run_segments(reference, *inputs.arrays, contract.max_segments)
    halting = np.min([np.abs(np.diff(p["q_values"])[:, 0]) for p in passes], axis=0)
    lots = np.min([np.abs(p["quantity"] - np.round(p["quantity"])) for p in passes], axis=0)
    gaps = np.array([top_two_gap(made) for made in decisions(passes, inputs.accounts, "")])
    clear = gaps >= CLEAR_GAP
    others = (gaps >= SAFE_GAP).astype(np.int64) + (halting >= CLEAR_HALT) + (lots >= CLEAR_LOTS)
    side = np.sign(windows.accounts[:, 1]).astype(np.int64)

    queues = []
    for current in Side:
        for wanted in (True, False):
            mine = np.flatnonzero((side == current) & (clear == wanted))
            mine = mine[np.argsort(-others[mine], kind="stable")]
            queues.append(mine[round_robin((windows.instrument[mine], windows.timeframe[mine]))])
    order = np.concatenate(queues)
    return order[round_robin((side[order],))]
