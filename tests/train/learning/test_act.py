"""Adaptive computation: who works on what and for how long, against plain loops over one slot."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from exactly import assert_equal

from hrm_train.learning.act import Drawn, Order, Slots, halting_targets, halts
from hrm_train.settings import Training

SIZES = [(10, 4), (12, 4), (7, 7), (9, 1), (50, 8)]
"""Samples and slots."""


def order(many: int = 50, slots: int = 8, **changes: Any) -> Order:
    """Over samples 100, 101, ..."""
    return Order(100 + np.arange(many), slots, Training(**changes))


def taken(asked: Order, slot: int, count: int) -> tuple[Any, ...]:
    """What one slot takes as one sample: its index, M_min, and what is shown of it."""
    drawn = asked.draw(np.array([slot]), np.array([count]))
    return drawn.sample.item(), drawn.least.item(), *drawn.shown[0].tolist()


def rows(drawn: Drawn) -> list[tuple[Any, ...]]:
    return [
        (sample, least, *shown)
        for sample, least, shown in zip(
            drawn.sample.tolist(), drawn.least.tolist(), drawn.shown.tolist(), strict=True
        )
    ]


# the order


@pytest.mark.parametrize(("many", "slots"), SIZES)
def test_all_slots_together_take_every_sample_exactly_once_per_epoch(many: int, slots: int) -> None:
    asked, epochs = order(many, slots), 4
    place = itertools.product(range(-(-epochs * many // slots)), range(slots))
    samples = [taken(asked, slot, count)[0] for count, slot in place]
    parts = [samples[many * epoch :][:many] for epoch in range(epochs)]
    assert [sorted(part) for part in parts] == [[*range(100, 100 + many)]] * epochs
    assert len({tuple(part) for part in parts}) == epochs  # each in an order of its own


@pytest.mark.parametrize(("many", "slots"), SIZES)
def test_what_is_drawn_for_many_slots_at_once_is_what_each_draws_alone(
    many: int, slots: int
) -> None:
    asked = order(many, slots, exploration=0.5, max_segments=5, unknown_probability=0.5)
    rng = np.random.default_rng(0)
    slot, count = rng.integers(0, slots, 60), rng.integers(0, 3 * many, 60)  # in several epochs
    together = rows(asked.draw(slot, count))
    alone = [taken(asked, *one) for one in zip(slot.tolist(), count.tolist(), strict=True)]
    assert together == alone


def walked(asked: Order, groups: list[list[int]], halting: list[list[bool]]) -> dict[int, Any]:
    """What each slot took, one after another, where `groups` of slots are a process each and each
    step halts the slots that `halting` says.
    """
    initial = (torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    processes = [Slots(np.array(group), initial) for group in groups]
    seen: dict[int, list[Any]] = {slot: [] for group in groups for slot in group}
    for step in [[True] * len(seen), *halting]:
        for slots in processes:
            slots.halted = np.array([step[slot] for slot in slots.number])
            due = slots.halted.copy()
            slots.refill(asked)
            for row in np.flatnonzero(due):
                seen[int(slots.number[row])].append(rows(slots.drawn)[row])
    return seen


def test_what_a_slot_takes_depends_on_seed_slot_and_count_alone() -> None:
    rng = np.random.default_rng(1)
    asked = order(11, 6, exploration=0.5, max_segments=4, unknown_probability=0.5)
    often, seldom = (rng.random((40, 6)) < share for share in (0.7, 0.2))
    whole = walked(asked, [[0, 1, 2, 3, 4, 5]], often.tolist())
    for groups in ([[0, 1, 2], [3, 4, 5]], [[0], [1], [2], [3], [4], [5]]):
        assert walked(asked, groups, often.tolist()) == whole
    other = walked(asked, [[0, 1, 2, 3, 4, 5]], seldom.tolist())
    for slot, samples in whole.items():
        assert samples == [taken(asked, slot, count) for count in range(len(samples))]
        shorter = min(len(samples), len(other[slot]))
        assert samples[:shorter] == other[slot][:shorter]
        assert shorter > 3


def test_another_seed_gives_another_order_and_other_draws() -> None:
    drawn = [
        order(exploration=0.5, max_segments=9, unknown_probability=0.5, seed=seed).draw(
            np.arange(8), np.zeros(8, dtype=np.int64)
        )
        for seed in (0, 0, 1, 2**63 - 1)
    ]
    assert rows(drawn[0]) == rows(drawn[1])
    for name in ("sample", "least", "shown"):
        different = {tuple(getattr(one, name).ravel().tolist()) for one in drawn}
        assert len(different) == 3, name


# exploration and hidden identities


def many_drawn(**changes: Any) -> Drawn:
    """40 000 draws."""
    slot, count = np.meshgrid(np.arange(1000), np.arange(40))
    return order(1000, 1000, **changes).draw(slot.ravel(), count.ravel())


@pytest.mark.parametrize(
    ("exploration", "most", "least", "expected"),
    [
        (0.3, 4, 1, {1: 0.7, 2: 0.1, 3: 0.1, 4: 0.1}),
        (0.5, 2, 1, {1: 0.5, 2: 0.5}),
        (0.3, 4, 3, {3: 0.9, 4: 0.1}),
        (0.9, 4, 4, {4: 1.0}),
        (0.0, 4, 1, {1: 1.0}),
        (0.9, 1, 1, {1: 1.0}),
    ],
)
def test_the_least_segments_are_one_or_when_exploring_uniform_from_two_to_the_most(
    exploration: float, most: int, least: int, expected: dict[int, float]
) -> None:
    drawn = many_drawn(exploration=exploration, max_segments=most, min_segments=least)
    found = Counter(drawn.least.tolist())
    assert found.keys() == expected.keys()
    for number, share in expected.items():
        assert found[number] / 40_000 == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.5])
def test_identities_are_hidden_about_as_often_as_asked_each_by_itself(probability: float) -> None:
    drawn = many_drawn(unknown_probability=probability, exploration=0.5)
    instrument, timeframe, explored = *~drawn.shown.T, drawn.least > 1
    for hidden in (instrument, timeframe):
        assert hidden.mean() == pytest.approx(probability, abs=0.006)
        assert (hidden & explored).mean() == pytest.approx(probability / 2, abs=0.006)
    assert (instrument & timeframe).mean() == pytest.approx(probability**2, abs=0.006)


# the rule of the paper


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_sample_halts_by_the_rule_of_the_paper(most: int) -> None:
    values = [0.0, 0.3, 0.7, np.nan]
    cases = [*itertools.product(values, values, range(1, most + 1), range(1, most + 1))]
    q_halt, q_continue, segment, least = map(np.array, zip(*cases, strict=True))
    expected = [  # a tie goes on, and what is no number
        m >= most or (halt > go_on and m >= m_min) for halt, go_on, m, m_min in cases
    ]
    q_B2 = np.stack([q_halt, q_continue], axis=1).astype(np.float32)
    assert halts(q_B2, segment, least, most).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_are_those_of_the_paper(dtype: torch.dtype) -> None:
    cases = [*itertools.product([False, True], [False, True], [0.1, 0.6], [0.2, 0.6, 0.9])]
    expected = []
    for correct, last, next_halt, next_continue in cases:
        reward = 1.0 if correct else 0.0
        g_continue = next_halt if last else max(next_halt, next_continue)
        expected.append([reward, g_continue])
    correct_B, last_B = (torch.tensor([case[i] for case in cases]) for i in (0, 1))
    next_B2 = torch.tensor([case[2:] for case in cases], dtype=dtype)
    found = halting_targets(correct_B, next_B2, last_B)
    assert_equal(found, torch.tensor(expected, dtype=dtype))


def test_where_there_never_is_a_next_segment_going_on_has_no_target() -> None:
    correct_B = torch.tensor([True, False, True])
    found = halting_targets(correct_B, None, torch.ones(3, dtype=torch.bool))
    nan = torch.nan
    expected = torch.tensor([[1.0, nan], [0.0, nan], [1.0, nan]])
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


# slots


def states(size: int, fill: float) -> tuple[torch.Tensor, torch.Tensor]:
    """z_H and z_L of distinct values, different for every row."""
    z_H = torch.arange(size * 12.0).view(size, 3, 4)
    return z_H + fill, z_H[..., :2] - fill


INITIAL = (torch.linspace(-1, 1, 12).view(1, 3, 4), torch.linspace(2, 3, 6).view(1, 3, 2))


def test_slots_start_with_their_first_samples_from_the_initial_states() -> None:
    asked, number = order(), np.array([2, 5, 7])
    slots = Slots(number, INITIAL)
    assert slots.halted.tolist() == [True] * 3
    slots.refill(asked)
    assert rows(slots.drawn) == [taken(asked, slot, 0) for slot in number]
    assert (slots.count.tolist(), slots.segment.tolist()) == ([1, 1, 1], [0, 0, 0])
    assert slots.halted.tolist() == [False] * 3
    assert_equal(slots.states, tuple(z.repeat(3, 1, 1) for z in INITIAL))


@pytest.mark.parametrize(
    "halted", [[True, False, False, True], [False, False, True, False], [True] * 4]
)
def test_a_refill_gives_exactly_the_halted_rows_a_fresh_sample_and_initial_states(
    halted: list[bool],
) -> None:
    asked = order()
    slots = Slots(np.arange(4), INITIAL)
    slots.refill(asked)
    carried = states(4, 0.25)
    slots.advance(np.zeros((4, 2), dtype=np.float32), carried, most=9)
    expected = tuple(z.clone() for z in carried)
    slots.halted = np.array(halted)

    slots.refill(asked)

    for row, gone in enumerate(halted):
        if gone:
            expected[0][row], expected[1][row] = INITIAL[0][0], INITIAL[1][0]
    assert_equal(slots.states, expected)
    assert rows(slots.drawn) == [taken(asked, slot, int(halted[slot])) for slot in range(4)]
    assert slots.segment.tolist() == [0 if gone else 1 for gone in halted]
    assert slots.count.tolist() == [2 if gone else 1 for gone in halted]
    assert slots.halted.tolist() == [False] * 4
    assert_equal(slots._initial, INITIAL)


def test_a_refill_where_none_has_halted_changes_nothing() -> None:
    asked = order()
    slots = Slots(np.arange(4), INITIAL)
    slots.refill(asked)
    carried = states(4, 0.25)
    slots.advance(np.zeros((4, 2), dtype=np.float32), carried, most=9)
    before = (rows(slots.drawn), slots.count.tolist(), slots.segment.tolist())
    slots.refill(asked)
    assert (rows(slots.drawn), slots.count.tolist(), slots.segment.tolist()) == before
    assert_equal(slots.states, states(4, 0.25))


@pytest.mark.parametrize("most", [1, 2, 4])
def test_slots_go_through_their_samples_as_a_loop_over_each_would(most: int) -> None:
    asked = order(20, 5, max_segments=most, exploration=0.5)
    q = np.random.default_rng(3).random((30, 5, 2)).astype(np.float32)
    slots = Slots(np.arange(5), INITIAL)
    found: dict[int, list[tuple[Any, ...]]] = {slot: [] for slot in range(5)}
    for step in range(30):
        slots.refill(asked)
        last = slots.last(most).tolist()
        slots.advance(q[step], states(5, step), most)
        for slot in range(5):
            found[slot].append(
                (
                    int(slots.drawn.sample[slot]),
                    int(slots.segment[slot]),
                    last[slot],
                    bool(slots.halted[slot]),
                )
            )
        assert_equal(slots.states, states(5, step))

    for slot in range(5):
        expected: list[tuple[Any, ...]] = []
        count = 0
        while len(expected) < 30:
            sample, m_min, _, _ = taken(asked, slot, count)
            for m in range(1, most + 1):
                if len(expected) == 30:
                    break
                q_halt, q_continue = q[len(expected), slot]
                ended = bool(m >= most or (q_halt > q_continue and m >= m_min))
                expected.append((sample, m, m == most, ended))
                if ended:
                    break
            count += 1
        assert found[slot] == expected
