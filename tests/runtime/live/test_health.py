from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from live import SAFETY_S

from hrm_runtime import Action, Reason
from hrm_runtime.artifact.decision import Decision, hold
from hrm_runtime.live.health import BOUNDS_MS, Latency, Statistics, Thinking


def taking(*latencies_ms: float) -> Latency:
    """Of decisions that took so long."""
    statistics = Statistics()
    for latency_ms in latencies_ms:
        statistics.answered(hold(Reason.STALE, "abc", latency_ms=latency_ms))
    return statistics.latency


def buckets(**counts: int) -> tuple[int, ...]:
    """All buckets, some with counts: `b0` is the first."""
    return tuple(counts.get(f"b{number}", 0) for number in range(13))


# latencies


def test_bounds_rise_up_to_a_second() -> None:
    assert BOUNDS_MS == (1, 2, 5, 10, 15, 20, 30, 50, 100, 200, 500, 1000)


def test_before_the_first_decision_there_is_no_latency() -> None:
    latency = taking()
    assert latency == Latency(buckets=buckets(), total_ms=0.0, slowest_ms=0.0)
    assert (latency.count, latency.quantile(0.5), latency.quantile(0.0)) == (0, None, None)


@pytest.mark.parametrize(
    ("latency_ms", "bucket"),
    [
        (0.0, "b0"),
        (1.0, "b0"),
        (1.0000001, "b1"),
        (2.0, "b1"),
        (12.5, "b4"),
        (1000.0, "b11"),
        (1000.1, "b12"),
        (1e9, "b12"),
    ],
)
def test_a_latency_is_counted_where_it_is_at_most_the_bound(latency_ms: float, bucket: str) -> None:
    expected = Latency(buckets=buckets(**{bucket: 1}), total_ms=latency_ms, slowest_ms=latency_ms)
    assert taking(latency_ms) == expected


def test_latencies_add_up() -> None:
    latency = taking(0.5, 7.5, 3.0, 7.0, 2000.0, 1.0)
    assert latency.buckets == buckets(b0=2, b2=1, b3=2, b12=1)
    assert (latency.count, latency.total_ms, latency.slowest_ms) == (6, 2019.0, 2000.0)


HUNDRED = (*[0.5] * 50, *[4.0] * 40, *[25.0] * 9, 27.0)


@pytest.mark.parametrize(
    ("share", "bound"),
    [(0.0, 1.0), (0.5, 1.0), (0.51, 5.0), (0.9, 5.0), (0.91, 27.0), (0.99, 27.0), (1.0, 27.0)],
)
def test_a_quantile_is_a_bound_that_so_many_do_not_exceed(share: float, bound: float) -> None:
    assert taking(*HUNDRED).quantile(share) == bound


@pytest.mark.parametrize(
    ("latencies_ms", "share", "found"),
    [
        ((0.25,), 0.5, 0.25),  # nothing is slower than the slowest
        ((0.25, 3.0), 0.5, 1.0),
        ((3.0, 1500.0, 7000.0), 0.5, 7000.0),  # the last bucket has no bound
        ((3.0, 1500.0, 7000.0), 0.3, 5.0),
    ],
)
def test_a_quantile_is_never_beyond_the_slowest(
    latencies_ms: tuple[float, ...], share: float, found: float
) -> None:
    assert taking(*latencies_ms).quantile(share) == found


# decisions


def test_decisions_are_counted_by_action_and_reason() -> None:
    statistics = Statistics()
    stale = hold(Reason.STALE, "abc")
    decided: list[Decision] = [
        *(replace(stale, action=Action.BUY_LONG, reason=Reason.OK) for _ in range(3)),
        *(replace(stale, reason=Reason.OK) for _ in range(2)),
        stale,
    ]
    assert statistics.decisions == {}
    for decision in decided:
        statistics.answered(decision)
    assert statistics.decisions == {
        (Action.BUY_LONG, Reason.OK): 3,
        (Action.HOLD, Reason.OK): 2,
        (Action.HOLD, Reason.STALE): 1,
    }


def test_what_was_read_before_is_not_changed_by_a_decision() -> None:
    statistics = Statistics()
    statistics.answered(hold(Reason.STALE, "abc", latency_ms=3.0))
    decisions, latency = statistics.decisions, statistics.latency
    statistics.answered(hold(Reason.STALE, "abc", latency_ms=4.0))
    assert decisions == {(Action.HOLD, Reason.STALE): 1}
    assert latency == Latency(buckets=buckets(b2=1), total_ms=3.0, slowest_ms=3.0)


def test_repetitions_are_no_decisions() -> None:
    statistics = Statistics()
    assert statistics.repetitions == 0
    statistics.repeated()
    statistics.repeated()
    assert (statistics.repetitions, statistics.decisions, statistics.latency.count) == (2, {}, 0)


# thinking


def test_before_the_first_thought_there_are_no_residuals() -> None:
    assert Statistics().thinking == Thinking(
        decided=0, segments=0, early=0, l_residual=None, h_residual=None
    )


def test_thoughts_add_up_and_the_last_residuals_stay() -> None:
    statistics = Statistics()
    statistics.thought(segments=3, most=4, l_residual=0.25, h_residual=0.5)
    assert statistics.thinking == Thinking(
        decided=1, segments=3, early=1, l_residual=0.25, h_residual=0.5
    )
    statistics.thought(segments=4, most=4, l_residual=0.125, h_residual=0.0625)
    statistics.thought(segments=1, most=4, l_residual=0.75, h_residual=0.875)
    assert statistics.thinking == Thinking(
        decided=3, segments=8, early=2, l_residual=0.75, h_residual=0.875
    )


def test_what_several_threads_count_is_all_there() -> None:
    statistics, together = Statistics(), Barrier(4)
    decision = hold(Reason.STALE, "abc", latency_ms=0.5)

    def count(_: int) -> None:
        together.wait(SAFETY_S)
        for _ in range(500):
            statistics.answered(decision)
            statistics.repeated()
            statistics.thought(2, 3, 0.5, 0.25)

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(count, range(4)))
    assert statistics.decisions == {(Action.HOLD, Reason.STALE): 2000}
    assert statistics.latency == Latency(buckets=buckets(b0=2000), total_ms=1000.0, slowest_ms=0.5)
    assert statistics.repetitions == 2000
    assert statistics.thinking == Thinking(
        decided=2000, segments=4000, early=2000, l_residual=0.5, h_residual=0.25
    )
