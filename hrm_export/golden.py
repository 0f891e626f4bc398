"""Choosing golden vectors: held-out windows whose decision rounding cannot turn."""

from typing import Final

import numpy as np

from hrm_export.parity import Inputs, top_two_gap, torch_run, window_inputs
from hrm_runtime.contract import Contract
from hrm_runtime.golden import LEAST_WINDOWS, WITH_BARS, Golden
from hrm_runtime.model import Ids, decisions, run_segments
from hrm_train.checkpoint import Checkpoint
from hrm_train.errors import CheckpointInvalid
from hrm_train.windows import round_robin

CLEAR_GAP: Final = 0.05
CLEAR_HALT: Final = 1e-3
CLEAR_LOTS: Final = 1e-2
"""How far a golden window stays from a tie, a changed segment count and a whole number of lots."""

UNKNOWN_WINDOWS: Final = 4
"""How many windows pretend not to know their instrument."""


def make_golden(source: Checkpoint, contract: Contract) -> Golden:
    """Golden vectors over all sides and instruments, clear-cut ones first, outputs by torch.

    Raises:
        CheckpointInvalid: too few held-out windows.
    """
    held_out = source.windows
    known = LEAST_WINDOWS - UNKNOWN_WINDOWS
    if len(held_out) < known:
        raise CheckpointInvalid(
            f"expected at least {known} held-out windows, found {len(held_out)}"
        )
    inputs = window_inputs(contract, held_out)
    order = np.argsort(-_clarity(source, contract, inputs), kind="stable")
    kinds = (held_out.instrument, held_out.timeframe, np.sign(held_out.accounts[:, 1]).astype(int))
    chosen = order[round_robin(tuple(kind[order] for kind in kinds))][:known]
    chosen = np.concatenate((chosen, chosen[:UNKNOWN_WINDOWS]))

    picked = held_out[chosen]
    picked.instrument[known:] = 0
    inputs = window_inputs(contract, picked)
    passes = run_segments(torch_run(source.model), *inputs.arrays, contract.max_segments)
    made = decisions(passes, inputs.accounts, "")
    return Golden(
        features=inputs.features,
        account=inputs.account,
        instrument=inputs.instrument,
        timeframe=inputs.timeframe,
        raw_account=picked.accounts,
        passes=tuple(passes),
        actions=np.array([int(decision.action) for decision in made]),
        segments=np.array([decision.segments for decision in made]),
        quantities=np.array([decision.quantity for decision in made]),
        bars=np.concatenate(
            (picked.stamps[:WITH_BARS, None].astype(np.float64), picked.prices[:WITH_BARS]), axis=1
        ),
    )


def _clarity(source: Checkpoint, contract: Contract, inputs: Inputs) -> Ids:
    """int64 [g]: from how many of the three boundaries a window's decision stays clear."""
    passes = run_segments(torch_run(source.model), *inputs.arrays, contract.max_segments)
    halting = np.min([np.abs(np.diff(p["q_values"])[:, 0]) for p in passes], axis=0)
    lots = np.min([np.abs(p["quantity"] - np.round(p["quantity"])) for p in passes], axis=0)
    gaps = np.array([top_two_gap(made) for made in decisions(passes, inputs.accounts, "")])
    clear = np.stack([gaps >= CLEAR_GAP, halting >= CLEAR_HALT, lots >= CLEAR_LOTS])
    counts: Ids = clear.sum(axis=0)
    return counts
