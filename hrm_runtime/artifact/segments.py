"""Passes of a graph, each from the states of the one before, until every row has halted."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.decision import Decision, decision
from hrm_runtime.market.account import Account

Outputs = dict[str, npt.NDArray[Any]]
"""One pass of the graph, by output name; the first axis is the batch."""

Run = Callable[..., Outputs]
"""(features, account, instrument, timeframe, z_H=None, z_L=None) -> Outputs."""


def run_segments(
    run: Run,
    features: npt.ArrayLike,
    account: npt.ArrayLike,
    instrument: npt.ArrayLike,
    timeframe: npt.ArrayLike,
    max_segments: int,
) -> list[Outputs]:
    """Call `run` with the states it returned until every row has halted or `max_segments` ran.

    A row halts after the first pass whose q_halt exceeds its q_continue, or whose outputs are not
    finite; passes after that one do not concern it. `run` is `Model.run` or anything that answers
    alike.
    """
    passes: list[Outputs] = []
    states: dict[str, npt.NDArray[Any]] = {}
    while len(passes) < max_segments:
        outputs = run(features, account, instrument, timeframe, **states)
        passes.append(outputs)
        if _halting(passes).any(axis=0).all():
            break
        states = {name: _finite(outputs[f"{name}_out"]) for name in ("z_H", "z_L")}
    return passes


def segments_of(passes: Sequence[Outputs]) -> npt.NDArray[np.int64]:
    """int64 [B]: how many passes concern each row."""
    halting = _halting(passes)
    halting[-1] = True
    counts: npt.NDArray[np.int64] = 1 + np.argmax(halting, axis=0)
    return counts


def decisions(
    passes: Sequence[Outputs],
    accounts: Sequence[Account],
    model_id: str,
    latency_ms: float = 0.0,
    unknown: Sequence[tuple[str, ...]] | None = None,
) -> list[Decision]:
    """The decision of each row, from the pass at which it halted.

    Args:
        unknown: `unknown_names` of each row; none if left out.
    """
    return [
        decision(
            passes[segments - 1],
            row,
            account,
            segments=segments,
            model_id=model_id,
            latency_ms=latency_ms,
            unknown=() if unknown is None else unknown[row],
        )
        for row, (account, segments) in enumerate(
            zip(accounts, segments_of(passes).tolist(), strict=True)
        )
    ]


def broken(outputs: Outputs) -> npt.NDArray[np.bool_]:
    """Bool [B]: where an output is not finite."""
    broken: npt.NDArray[np.bool_] = np.any(
        [~np.isfinite(output).reshape(len(output), -1).all(axis=1) for output in outputs.values()],
        axis=0,
    )
    return broken


def _halting(passes: Sequence[Outputs]) -> npt.NDArray[np.bool_]:
    """Bool [passes, B]: where q_halt exceeds q_continue, or an output is not finite."""
    return np.stack([(p["q_values"][:, 0] > p["q_values"][:, 1]) | broken(p) for p in passes])


def _finite(states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`states` with zeros for what is not finite: only rows that have halted hold such."""
    return np.where(np.isfinite(states), states, np.float32(0))
