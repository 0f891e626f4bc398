"""A live engine's health as Prometheus metrics: `pip install 'hrm[metrics]'`.

    prometheus_client.REGISTRY.register(EngineCollector(engine))

Everything is read when Prometheus asks; nothing is added to a decision.
"""

from collections.abc import Iterator

try:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "metrics need prometheus_client: pip install 'hrm[metrics]'"
    ) from error

from itertools import accumulate

from hrm_runtime.live.engine import LiveEngine
from hrm_runtime.live.health import BOUNDS_MS, Health, Latency


class EngineCollector(Collector):
    """Metrics of one engine; `collect` makes a self-test of the network each time."""

    def __init__(self, engine: LiveEngine) -> None:
        self._engine = engine

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect to register."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment."""
        health = self._engine.health()
        decisions = CounterMetricFamily(
            "hrm_decisions", "Decisions by action and reason", labels=["action", "reason"]
        )
        for (action, reason), count in sorted(health.decisions.items()):
            decisions.add_metric([action.name, reason.value], count)
        yield decisions
        yield _latency(health.latency)
        yield CounterMetricFamily(
            "hrm_repetitions", "Decisions answered from memory", value=health.repeated
        )
        yield CounterMetricFamily(
            "hrm_segments", "Passes of the graph", value=health.thinking.segments
        )
        yield CounterMetricFamily(
            "hrm_early_halts", "Decisions that halted early", value=health.thinking.early
        )
        yield from _gauges(health)
        yield from _streams(health)


def _latency(latency: Latency) -> Metric:
    bounds = [str(bound / 1e3) for bound in BOUNDS_MS]
    family = HistogramMetricFamily("hrm_decision_seconds", "From call to answer")
    family.add_metric(
        [],
        buckets=list(zip([*bounds, "+Inf"], accumulate(latency.buckets), strict=True)),
        sum_value=latency.total_ms / 1e3,
    )
    return family


def _gauges(health: Health) -> Iterator[Metric]:
    for name, text, value in (
        ("hrm_serving", "Whether the next good bar would be decided", health.serving),
        ("hrm_killed", "Whether the kill switch is pulled", health.killed is not None),
        ("hrm_breaker_open", "Whether the breaker is open", health.breaker_open),
        ("hrm_failures", "Failures in a row", health.failures),
        ("hrm_waiting", "Decisions that nobody has begun", health.waiting),
        ("hrm_self_test_seconds", "One pass of the network", health.self_test_ms / 1e3),
        ("hrm_resident_bytes", "Memory of the process", _scaled(health.memory_mb, 1e6)),
        ("hrm_l_residual", "Last change of the low state", health.thinking.l_residual),
        ("hrm_h_residual", "Last change of the high state", health.thinking.h_residual),
    ):
        if value is not None:
            yield GaugeMetricFamily(name, text, value=value)
    artifact = GaugeMetricFamily("hrm_artifact", "The artifact that decides", labels=["id"])
    artifact.add_metric([health.model_id], 1)
    yield artifact


def _streams(health: Health) -> Iterator[Metric]:
    labels = ["instrument", "timeframe"]
    age = GaugeMetricFamily("hrm_bar_age_seconds", "Since the newest bar closed", labels=labels)
    ready = GaugeMetricFamily("hrm_stream_ready", "Whether there is history enough", labels=labels)
    for line, stream in sorted(health.streams.items()):
        age.add_metric(line, stream.age_s)
        ready.add_metric(line, stream.ready)
    yield age
    yield ready


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
