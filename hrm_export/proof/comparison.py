"""Two ways to compute the same decisions, held against each other over many windows."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hrm_export.proof.gates import GAPS, Gate
from hrm_runtime.artifact.contract import OUTPUTS, Flip, GapBand, Growth, OutputParity, Stage
from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.golden import deviation, lots_agree, top_two_gap
from hrm_runtime.artifact.segments import Outputs, decisions
from hrm_runtime.market.account import Account


class Comparison:
    """Gathers differences over batches of windows."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._worst_abs = dict.fromkeys(OUTPUTS, 0.0)
        self._worst_rel = dict.fromkeys(OUTPUTS, 0.0)
        self._beyond = dict.fromkeys(OUTPUTS, 0)
        self._flips: list[Flip] = []
        self._unexcused = 0
        self._gaps: list[float] = []
        self._same_action: list[bool] = []

    def add(
        self, accounts: Sequence[Account], expected: Sequence[Outputs], found: Sequence[Outputs]
    ) -> None:
        """Compare the passes of one more batch of windows."""
        both = [*zip(expected, found, strict=False)]  # a flipped segment may end one early
        for name in OUTPUTS:
            absolute = _worst([np.abs(other[name] - one[name]) for one, other in both])
            relative = _worst([deviation(other[name], one[name]) for one, other in both])
            self._worst_abs[name] = max(self._worst_abs[name], float(absolute.max()))
            self._worst_rel[name] = max(self._worst_rel[name], float(relative.max()))
            if self._gate.tolerances is not None:
                self._beyond[name] += int((relative > self._gate.tolerances[name]).sum())
        ours, theirs = decisions(expected, accounts, ""), decisions(found, accounts, "")
        for row, (reference, decision) in enumerate(zip(ours, theirs, strict=True)):
            what = _difference(reference, decision)
            gap = top_two_gap(reference)
            if what is not None:
                self._flips.append(Flip(window=len(self._gaps), what=what, gap=gap))
                parted = min(reference.segments, decision.segments)  # here one of them halted
                halt, go_on = expected[parted - 1]["q_values"][row].tolist()
                self._unexcused += not _excused(self._gate, reference, decision, abs(halt - go_on))
            self._gaps.append(gap)
            self._same_action.append(reference.action == decision.action)

    def stage(
        self, name: str, reference: str, gated: bool = True, growth: Growth | None = None
    ) -> Stage:
        """What was gathered, judged.

        Args:
            name, reference: of the stage.
            gated: whether it must pass.
            growth: the error after each step.
        """
        windows, tolerances = len(self._gaps), self._gate.tolerances
        outputs = {
            output: OutputParity(
                max_abs=self._worst_abs[output],
                max_rel=self._worst_rel[output],
                tolerance=None if tolerances is None else tolerances[output],
                beyond=self._beyond[output],
            )
            for output in OUTPUTS
        }
        allowed = self._gate.allowance * windows
        return Stage(
            stage=name,
            reference=reference,
            gated=gated,
            allowance=self._gate.allowance,
            windows=windows,
            max_abs=max(self._worst_abs.values()),
            max_rel=max(self._worst_rel.values()),
            outputs=outputs,
            action_agreement=1.0 - len(self._flips) / max(1, windows),
            by_gap=self._bands(),
            flips=tuple(self._flips),
            growth=growth,
            passed=max(self._unexcused, *self._beyond.values()) <= allowed,
        )

    def _bands(self) -> tuple[GapBand, ...]:
        gaps, same = np.array(self._gaps), np.array(self._same_action)
        flipped = np.zeros(len(gaps), dtype=bool)
        flipped[[flip.window for flip in self._flips]] = True
        return tuple(
            GapBand(
                above=above,
                windows=int(band.sum()),
                same_action=int(same[band].sum()),
                same_decision=int((~flipped[band]).sum()),
            )
            for above, below in pairwise((*GAPS, np.inf))
            for band in [(gaps >= above) & (gaps < below)]
        )


def _worst(errors: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The largest of each window over passes and entries; infinite where one is no number."""
    largest = [error.reshape(len(error), -1).max(axis=1) for error in errors]
    worst: npt.NDArray[Any] = np.nan_to_num(np.max(largest, axis=0), nan=np.inf, posinf=np.inf)
    return worst


def _difference(
    reference: Decision, found: Decision
) -> Literal["segments", "action", "quantity"] | None:
    if reference.segments != found.segments:
        return "segments"
    if reference.action != found.action:
        return "action"
    if reference.quantity != found.quantity:
        return "quantity"
    return None


def _excused(gate: Gate, reference: Decision, found: Decision, halting_gap: float) -> bool:
    """Whether a difference is one that the gate allows.

    Args:
        halting_gap: of the reference's two halting values, where the numbers of segments part.
    """
    other_segments = reference.segments != found.segments
    if other_segments and halting_gap <= gate.near_halt:
        return True
    if other_segments and gate.whole:
        return False
    if reference.action != found.action:
        return top_two_gap(reference) <= gate.near_tie
    if gate.whole and gate.tolerances is not None:
        tolerance = gate.tolerances["quantity"]
        return lots_agree(reference.action, reference.quantity, found.quantity, tolerance)
    return True
