"""Adaptive computation: which samples are in work, how long each is thought about, and what the
halting head is trained towards. Used by training only.

Source: "Adaptive computational time", section 2 of the paper (arXiv 2506.21734). The batch is a
row of slots. A slot works on one sample for a number of segments, its states carried on; when the
sample halts, the slot takes a fresh one from the initial states.

What a slot takes, and whether it explores, is a function of (seed, global slot, count of samples
it has started): it does not depend on how many processes share the slots, nor on when the others
halt.

    B slots of this process    S tokens    D state width
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hrm_train.network.model import States
from hrm_train.settings import Training

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_ORDER: Final = 1
_DRAWS: Final = 2
"""Streams of random numbers, each of its own."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What k slots take next.

    Attributes:
        sample: int64 [k].
        least: int64 [k], segments before it may halt (M_min).
        shown: bool [k, 2], whether it keeps its instrument and its timeframe.
    """

    sample: Ids
    least: Ids
    shown: Flags


class Order:
    """The samples each slot takes, one after another, and what is drawn with them.

    Slot s takes as its sample number c the one at position c * slots + s of the samples shuffled
    anew for each epoch, so that all of them together take every sample once per epoch.
    """

    def __init__(self, samples: Ids, slots: int, training: Training) -> None:
        self.samples = samples
        self.slots = slots
        self.training = training

    def draw(self, slot: Ids, count: Ids) -> Drawn:
        """What `slot` [k] takes as its sample number `count` [k], from 0."""
        training, many = self.training, len(self.samples)
        sample = np.empty(len(slot), dtype=np.int64)
        uniform = np.empty((len(slot), 4))
        epoch, place = np.divmod(count * self.slots + slot, many)
        for number in np.unique(epoch).tolist():
            rows = epoch == number
            sample[rows] = self.samples[_shuffled(training.seed, number, many)[place[rows]]]
        for number in np.unique(count).tolist():
            rows = count == number
            uniform[rows] = _uniform(training.seed, number, self.slots)[slot[rows]]
        explored = 2 + (uniform[:, 1] * (training.max_segments - 1)).astype(np.int64)
        explores = (uniform[:, 0] < training.exploration) & (training.max_segments > 1)
        return Drawn(
            sample,
            np.maximum(training.min_segments, np.where(explores, explored, 1)),
            uniform[:, 2:] >= training.unknown_probability,
        )


@lru_cache(maxsize=4)  # slots are at most an epoch or two apart
def _shuffled(seed: int, epoch: int, many: int) -> Ids:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(many)


@lru_cache(maxsize=64)
def _uniform(seed: int, count: int, slots: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng([seed, _DRAWS, count]).random((slots, 4))


class Slots:
    """This process's slots and the samples they work on.

    Attributes:
        number: int64 [B], their global numbers.
        count: int64 [B], samples each has started.
        segment: int64 [B], segments run of the current sample.
        halted: bool [B], whether it is done and a fresh one is due.
        drawn: the current samples.
        states: (z_H, z_L) from which they go on, [B, S, D].
    """

    def __init__(self, number: Ids, initial: States) -> None:
        """All halted: the first `refill` gives each its first sample.

        Args:
            number: int64 [B].
            initial: the initial states, [1, S, D].
        """
        size = len(number)
        self.number = number
        self.count = np.zeros(size, dtype=np.int64)
        self.segment = np.zeros(size, dtype=np.int64)
        self.halted = np.ones(size, dtype=np.bool_)
        self.drawn = Drawn(
            np.zeros(size, dtype=np.int64),
            np.ones(size, dtype=np.int64),
            np.ones((size, 2), dtype=np.bool_),
        )
        self._initial = initial
        self.states: States = tuple(z.expand(size, -1, -1).clone() for z in initial)  # type: ignore[assignment]

    def refill(self, order: Order) -> None:
        """Give every halted slot a fresh sample and the initial states."""
        due = self.halted
        if not due.any():
            return
        fresh = order.draw(self.number[due], self.count[due])
        self.drawn.sample[due] = fresh.sample
        self.drawn.least[due] = fresh.least
        self.drawn.shown[due] = fresh.shown
        self.count[due] += 1
        self.segment[due] = 0
        self.halted = np.zeros_like(due)
        rows = torch.from_numpy(np.flatnonzero(due)).to(self.states[0].device)
        for z, initial in zip(self.states, self._initial, strict=True):
            z[rows] = initial

    def last(self, most: int) -> Flags:
        """Bool [B]: whether the segment to be run is a sample's last possible one."""
        return self.segment + 1 >= most

    def advance(self, q_B2: npt.NDArray[np.float32], states: States, most: int) -> None:
        """Take over what a segment came to.

        Args:
            q_B2: its q_values.
            states: its final states.
            most: segments a sample has at most (M_max).
        """
        self.segment += 1
        self.states = states
        self.halted = halts(q_B2, self.segment, self.drawn.least, most)


def halts(q_B2: npt.NDArray[np.float32], segment_B: Ids, least_B: Ids, most: int) -> Flags:
    """Whether a sample ends with this segment, its number from 1: at M_max; or, from M_min on,
    where halting is worth more than going on.
    """
    wants = (q_B2[:, 0] > q_B2[:, 1]) & (segment_B >= least_B)
    ended: Flags = wants | (segment_B >= most)
    return ended


def halting_targets(correct_B: Tensor, next_B2: Tensor | None, last_B: Tensor) -> Tensor:
    """G, [B, 2]: what q_halt and q_continue should have been.

    Halting is worth whether the answer is correct. Going on is worth what the next segment says:
    the better of its two values, or its q_halt after the last segment, where it would have to halt.

    Args:
        correct_B: bool, whether this segment's answer is a best one.
        next_B2: q_values of the next segment; None where there never is one, and going on has no
            target (NaN).
        last_B: bool, whether a row has no further segment.
    """
    if next_B2 is None:
        go_on_B = torch.full_like(correct_B, torch.nan, dtype=torch.float32)
    else:
        go_on_B = torch.where(last_B, next_B2[:, 0], next_B2.amax(dim=-1))
    return torch.stack((correct_B.to(go_on_B.dtype), go_on_B), dim=-1)
