"""Choosing golden vectors: held-out windows whose decision rounding cannot turn."""

from dataclasses import replace
from typing import Final

import numpy as np

from hrm_export.parity import Inputs, top_two_gap, torch_run, window_inputs
from hrm_runtime.actions import Side
from hrm_runtime.contract import LEAST_WINDOWS, Contract
from hrm_runtime.golden import WITH_BARS, Golden
from hrm_runtime.model import Ids, decisions, run_segments
from hrm_train.checkpoint import Checkpoint
from hrm_train.errors import CheckpointInvalid
from hrm_train.windows import Windows, concatenate, round_robin

CLEAR_GAP: Final = 0.05
CLEAR_HALT: Final = 1e-3
CLEAR_LOTS: Final = 1e-2
"""How far a golden window stays from a tie, a changed segment count and a whole number of lots."""

UNKNOWN_WINDOWS: Final = 4
"""How many windows pretend not to know their instrument."""


def make_golden(source: Checkpoint, contract: Contract, inputs: Inputs) -> Golden:
    """Golden vectors over all sides and instruments, clear-cut ones first, outputs by torch.

    Args:
        inputs: those of the checkpoint's held-out windows, from `window_inputs`.

    Raises:
        CheckpointInvalid: too few held-out windows.
    """
    known = source.windows
    unknown = replace(known, instrument=np.zeros_like(known.instrument))
    count = LEAST_WINDOWS - UNKNOWN_WINDOWS
    if len(known) < count:
        raise CheckpointInvalid(f"expected at least {count} held-out windows, found {len(known)}")
    named = _choose(source, contract, known, inputs)[:count]
    nameless = _choose(source, contract, unknown, window_inputs(contract, unknown))
    picked = concatenate(known[named], unknown[nameless[:UNKNOWN_WINDOWS]])
    stored = window_inputs(contract, picked)
    passes = run_segments(torch_run(source.model), *stored.arrays, contract.max_segments)
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


def _choose(source: Checkpoint, contract: Contract, windows: Windows, inputs: Inputs) -> Ids:
    """An order of the windows: sides in turn; within a side clear gaps first, then what else is
    clear, with instruments and timeframes in turn.
    """
    passes = run_segments(torch_run(source.model), *inputs.arrays, contract.max_segments)
    halting = np.min([np.abs(np.diff(p["q_values"])[:, 0]) for p in passes], axis=0)
    lots = np.min([np.abs(p["quantity"] - np.round(p["quantity"])) for p in passes], axis=0)
    gaps = np.array([top_two_gap(made) for made in decisions(passes, inputs.accounts, "")])
    clear = gaps >= CLEAR_GAP
    others = (halting >= CLEAR_HALT).astype(np.int64) + (lots >= CLEAR_LOTS)
    side = np.sign(windows.accounts[:, 1]).astype(np.int64)

    queues = []
    for current in Side:
        for wanted in (True, False):
            mine = np.flatnonzero((side == current) & (clear == wanted))
            mine = mine[np.argsort(-others[mine], kind="stable")]
            queues.append(mine[round_robin((windows.instrument[mine], windows.timeframe[mine]))])
    order = np.concatenate(queues)
    return order[round_robin((side[order],))]
