"""A live engine's health as Prometheus metrics: `pip install 'hrm[metrics]'`.

    prometheus_client.REGISTRY.register(EngineCollector(engine, another))

Everything is read when Prometheus asks; nothing is added to a decision.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

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

from hrm_runtime.errors import BadInput
from hrm_runtime.live.engine import LiveEngine
from hrm_runtime.live.health import BOUNDS_MS, Health

Found = list[tuple[list[str], Health]]
"""Of each engine its name, where engines have names, and how it is."""

_COUNTERS: Final[Mapping[str, tuple[str, Callable[[Health], float]]]] = {
    "hrm_repetitions": ("Decisions answered from memory", lambda health: health.repeated),
    "hrm_segments": ("Passes of the graph", lambda health: health.thinking.segments),
    "hrm_early_halts": ("Decisions that halted early", lambda health: health.thinking.early),
}

_GAUGES: Final[Mapping[str, tuple[str, Callable[[Health], float | None]]]] = {
    "hrm_serving": ("Whether the next good bar would be decided", lambda health: health.serving),
    "hrm_killed": ("Whether the kill switch is pulled", lambda health: health.killed is not None),
    "hrm_breaker_open": ("Whether the breaker is open", lambda health: health.breaker_open),
    "hrm_failures": ("Failures in a row", lambda health: health.failures),
    "hrm_waiting": ("Decisions that nobody has begun", lambda health: health.waiting),
    "hrm_self_test_seconds": (
        "One pass of the network",
        lambda health: health.self_test_ms / 1e3,
    ),
    "hrm_resident_bytes": (
        "Memory of the process",
        lambda health: None if health.memory_mb is None else 1e6 * health.memory_mb,
    ),
    "hrm_l_residual": ("Last change of the low state", lambda health: health.thinking.l_residual),
    "hrm_h_residual": ("Last change of the high state", lambda health: health.thinking.h_residual),
}
"""None where there is nothing to tell."""


class EngineCollector(Collector):
    """Metrics of the engines of a process; `collect` makes a self-test of each network each time.

    One collector has them all, since no family of metrics may come twice: a registry refuses a
    second one. Engines that have names are told apart by the label `engine`.

    Args:
        engines: one, or several with a name of its own each (`LiveSettings.name`).

    Raises:
        BadInput: two have one name.
    """

    def __init__(self, *engines: LiveEngine) -> None:
        names = [engine.settings.name for engine in engines]
        if len(set(names)) < len(names):
            raise BadInput(
                f"engines: expected a name of its own for each, found {names}; give them with "
                "LiveSettings(name=...)"
            )
        self._engines = engines
        self._labels = ["engine"] if any(names) else []

    def describe(self) -> Iterator[Metric]:
        """The families, empty: to know them, a registry need not collect."""
        return _families(self._labels, [])

    def collect(self) -> Iterator[Metric]:
        """The metrics at this moment."""
        named = bool(self._labels)
        found = [([one.settings.name] if named else [], one.health()) for one in self._engines]
        return _families(self._labels, found)


def _families(labels: list[str], found: Found) -> Iterator[Metric]:
    yield _decisions(labels, found)
    yield _latency(labels, found)
    for name, (text, counted) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=labels)
        for names, health in found:
            counter.add_metric(names, counted(health))
        yield counter
    for name, (text, told) in _GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for names, health in found:
            if (value := told(health)) is not None:
                gauge.add_metric(names, value)
        yield gauge
    artifact = GaugeMetricFamily(
        "hrm_artifact", "The artifact that decides", labels=[*labels, "id"]
    )
    for names, health in found:
        artifact.add_metric([*names, health.model_id], 1)
    yield artifact
    yield from _streams(labels, found)


def _decisions(labels: list[str], found: Found) -> Metric:
    family = CounterMetricFamily(
        "hrm_decisions", "Decisions by action and reason", labels=[*labels, "action", "reason"]
    )
    for names, health in found:
        for (action, reason), count in sorted(health.decisions.items()):
            family.add_metric([*names, action.name, reason.value], count)
    return family


def _latency(labels: list[str], found: Found) -> Metric:
    bounds = [str(bound / 1e3) for bound in BOUNDS_MS]
    family = HistogramMetricFamily("hrm_decision_seconds", "From call to answer", labels=labels)
    for names, health in found:
        counts = accumulate(health.latency.buckets)
        buckets = list(zip([*bounds, "+Inf"], counts, strict=True))
        family.add_metric(names, buckets=buckets, sum_value=health.latency.total_ms / 1e3)
    return family


def _streams(labels: list[str], found: Found) -> Iterator[Metric]:
    labels = [*labels, "instrument", "timeframe"]
    age = GaugeMetricFamily("hrm_bar_age_seconds", "Since the newest bar closed", labels=labels)
    ready = GaugeMetricFamily("hrm_stream_ready", "Whether there is history enough", labels=labels)
    unknown = GaugeMetricFamily(
        "hrm_stream_unknown", "Whether the artifact was not trained on its names", labels=labels
    )
    for names, health in found:
        for line, stream in sorted(health.streams.items()):
            age.add_metric([*names, *line], stream.age_s)
            ready.add_metric([*names, *line], stream.ready)
            unknown.add_metric([*names, *line], stream.unknown is not None)
    yield age
    yield ready
    yield unknown
