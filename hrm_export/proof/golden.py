"""Choosing golden vectors: held-out windows whose decision rounding cannot turn."""

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from hrm_export.proof.inputs import Inputs, window_inputs
from hrm_runtime.artifact.contract import LEAST_WINDOWS, NEAR, Contract
from hrm_runtime.artifact.golden import WITH_BARS, Golden, deviation, margins
from hrm_runtime.artifact.model import Ids
from hrm_runtime.artifact.segments import Outputs, Run, decisions, run_segments
from hrm_runtime.market.actions import Side
from hrm_train.data.windows import Windows, concatenate, round_robin
from hrm_train.errors import DataInvalid

CLEAR_GAP: Final = 0.05
SAFE_GAP: Final = 0.2
CLEAR_HALT: Final = 0.02
"""How far a golden window should stay from another action and another number of segments, where
there are such windows. All are further than `NEAR`; lots may step by what rounding explains.
"""

UNKNOWN_WINDOWS: Final = 4
"""How many windows pretend not to know their instrument."""

CANDIDATES: Final = 4 * LEAST_WINDOWS
"""Windows run through the artifact at once, until enough of them agree with the reference."""


def make_golden(
    reference: Run, served: Run, contract: Contract, known: Windows, inputs: Inputs
) -> Golden:
    """Golden vectors over all sides and instruments, clear-cut ones first.

    None is a tie that rounding may turn, and on all of them the artifact agrees with its reference:
    with int8, parity lets a few windows differ, which prove nothing on another machine.

    Args:
        reference: whose outputs are expected: torch, computing as the artifact does.
        served: the artifact.
        contract: of the artifact.
        known: windows to choose from.
        inputs: theirs, from `window_inputs`.

    Raises:
        DataInvalid: too few windows, or too few such ones.
    """
    count = LEAST_WINDOWS - UNKNOWN_WINDOWS
    named = _choose(reference, served, contract, known, inputs, count)
    few = np.unique(np.linspace(0, len(known) - 1, CANDIDATES, dtype=np.int64))
    hidden = replace(known[few], instrument=np.zeros_like(known.instrument[few]))
    unknown = window_inputs(contract, hidden)
    nameless = _choose(reference, served, contract, hidden, unknown, UNKNOWN_WINDOWS)
    picked = concatenate(known[named], hidden[nameless])
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


def _choose(
    reference: Run, served: Run, contract: Contract, windows: Windows, inputs: Inputs, count: int
) -> Ids:
    """The `count` best windows: sides in turn; within a side clear gaps first, then what else is
    clear, with instruments and timeframes in turn.
    """
    near, segments = NEAR[contract.graph.precision], contract.max_segments
    passes = run_segments(reference, *inputs.arrays, segments)
    gaps, halting = margins(passes, inputs.accounts, segments)
    clear = gaps >= CLEAR_GAP
    others = (gaps >= SAFE_GAP).astype(np.int64) + (halting >= CLEAR_HALT)
    side = np.sign(windows.accounts[:, 1]).astype(np.int64)
    certain = np.minimum(gaps, halting) > near

    queues = []
    for current in Side:
        for wanted in (True, False):
            mine = np.flatnonzero(certain & (side == current) & (clear == wanted))
            mine = mine[np.argsort(-others[mine], kind="stable")]
            queues.append(mine[round_robin((windows.instrument[mine], windows.timeframe[mine]))])
    order = np.concatenate(queues)
    order = order[round_robin((side[order],))]

    chosen = order[:0]
    for start in range(0, len(order), CANDIDATES):
        if len(chosen) >= count:
            break
        part = order[start : start + CANDIDATES]
        features, account, instrument, timeframe = (array[part] for array in inputs.arrays)
        found = run_segments(served, features, account, instrument, timeframe, segments)
        expected = [{name: output[part] for name, output in p.items()} for p in passes]
        chosen = np.concatenate((chosen, part[_agree(contract, expected, found)]))
    if len(chosen) < count:
        raise DataInvalid(
            f"golden vectors: expected at least {count} windows whose decision rounding cannot "
            f"turn, found {len(chosen)} of {len(windows)}: in {(gaps <= near).sum()} the two "
            f"largest probabilities are within {near:g} of each other, in "
            f"{(halting <= near).sum()} the values of halting and of going on, and in "
            f"{len(order) - len(chosen)} others the artifact differs from torch; give other bars "
            "with --golden, train for more epochs, or, where halting is undecided, train with "
            "max_segments: 1"
        )
    return chosen[:count]


def _agree(
    contract: Contract, expected: list[Outputs], found: list[Outputs]
) -> npt.NDArray[np.bool_]:
    """Bool [B]: where all outputs are within the contract's tolerances."""
    windows = len(found[0]["value"])
    within = [
        (deviation(other[name], one[name]) <= tolerance).reshape(windows, -1).all(axis=1)
        for one, other in zip(expected, found, strict=False)  # one may halt everywhere, at a tie
        for name, tolerance in contract.tolerances.items()
    ]
    agreeing: npt.NDArray[np.bool_] = np.all(within, axis=0)
    return agreeing
