import sys
from collections.abc import Iterator
from typing import Any

import pytest
from live import unknown_allowed
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import BadInput, LiveEngine, LiveSettings, Model

LINE = {"instrument": "Alpha", "timeframe": "5"}


def test_without_its_extra_the_module_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hrm_runtime.live.prometheus", raising=False)
    for name in ("prometheus_client", "prometheus_client.metrics_core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hrm\[metrics\]'"):
        import hrm_runtime.live.prometheus  # noqa: F401


@pytest.fixture
def registry() -> Any:
    return pytest.importorskip("prometheus_client").CollectorRegistry()


@pytest.fixture
def engine(model: Model, registry: Any) -> Iterator[LiveEngine]:
    from hrm_runtime.live.prometheus import EngineCollector

    settings = LiveSettings(clock=lambda: 1_700_630_400.0, failures=7)
    with LiveEngine(model, settings) as engine:
        registry.register(EngineCollector(engine))
        yield engine


def test_an_engine_that_has_done_nothing_serves(engine: LiveEngine, registry: Any) -> None:
    assert registry.get_sample_value("hrm_serving") == 1
    assert registry.get_sample_value("hrm_killed") == 0
    assert registry.get_sample_value("hrm_breaker_open") == 0
    assert registry.get_sample_value("hrm_decision_seconds_count") == 0
    assert registry.get_sample_value("hrm_repetitions_total") == 0
    assert registry.get_sample_value("hrm_l_residual") is None
    assert registry.get_sample_value("hrm_artifact", {"id": engine.model.id}) == 1


def test_metrics_are_what_health_says(engine: LiveEngine, registry: Any) -> None:
    bars = random_bars(engine.model.contract.bars_needed + 1, seed=5)
    engine.feed(bars[:-1], **LINE)
    decision = engine.decide(bars.newest(), ACCOUNTS["flat"], **LINE)
    assert engine.decide(bars.newest(), ACCOUNTS["flat"], **LINE) == decision
    refused = engine.decide(bars[:1].newest(), ACCOUNTS["flat"], **LINE)
    assert refused.reason == "out_of_order"
    engine.kill("a test")

    value, health = registry.get_sample_value, engine.health()
    made = {"action": decision.action.name, "reason": "ok"}
    assert value("hrm_decisions_total", made) == 1
    assert value("hrm_decisions_total", {"action": "HOLD", "reason": "out_of_order"}) == 1
    assert value("hrm_repetitions_total") == 1
    assert value("hrm_serving") == 0
    assert value("hrm_killed") == 1
    assert value("hrm_segments_total") == decision.segments
    assert value("hrm_early_halts_total") == health.thinking.early
    assert value("hrm_l_residual") == health.thinking.l_residual
    assert value("hrm_h_residual") == health.thinking.h_residual
    assert value("hrm_waiting") == 0
    assert value("hrm_bar_age_seconds", LINE) == 0
    assert value("hrm_stream_ready", LINE) == 1
    assert value("hrm_stream_unknown", LINE) == 0
    assert value("hrm_resident_bytes") > 1e6
    assert value("hrm_self_test_seconds") > 0


def test_a_stream_that_was_dropped_has_no_metrics(engine: LiveEngine, registry: Any) -> None:
    for line in (LINE, {**LINE, "instrument": "Beta"}):
        engine.feed(random_bars(5, seed=5), **line)
    engine.drop(**LINE)
    for name in ("hrm_bar_age_seconds", "hrm_stream_ready"):
        assert registry.get_sample_value(name, LINE) is None
        assert registry.get_sample_value(name, {**LINE, "instrument": "Beta"}) == 0


def test_a_stream_of_unknown_names_is_told(engine: LiveEngine, model: Model, registry: Any) -> None:
    engine.use(unknown_allowed(model))
    for instrument in ("Alpha", "ALPHA"):
        engine.feed(random_bars(5, seed=5), instrument=instrument, timeframe="5m")
    value = registry.get_sample_value
    assert value("hrm_stream_unknown", LINE) == 0
    assert value("hrm_stream_unknown", {"instrument": "ALPHA", "timeframe": "5"}) == 1


def test_latencies_are_a_cumulative_histogram(engine: LiveEngine, registry: Any) -> None:
    bars = random_bars(engine.model.contract.bars_needed + 5, seed=5)
    engine.feed(bars[:-5], **LINE)
    for place in range(-5, 0):
        engine.decide(bars[len(bars) + place :][:1].newest(), ACCOUNTS["flat"], **LINE)
    latency = engine.health().latency
    bounds = ("0.001", "0.01", "0.1", "1.0", "+Inf")
    counts = [
        registry.get_sample_value("hrm_decision_seconds_bucket", {"le": bound}) for bound in bounds
    ]
    assert counts == sorted(counts)
    assert counts[-1] == latency.count == 5
    assert registry.get_sample_value("hrm_decision_seconds_sum") == latency.total_ms / 1e3


def test_memory_that_the_system_does_not_tell_is_left_out(
    engine: LiveEngine, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_runtime.live.engine.resident_megabytes", lambda: None)
    assert registry.get_sample_value("hrm_resident_bytes") is None
    assert registry.get_sample_value("hrm_serving") == 1


def test_engines_of_one_process_are_told_apart_by_their_names(model: Model, registry: Any) -> None:
    from prometheus_client.openmetrics import exposition, parser

    from hrm_runtime.live.prometheus import EngineCollector

    engines = [LiveEngine(model, LiveSettings(name=name)) for name in ("index", "coins")]
    registry.register(EngineCollector(*engines))
    engines[1].kill("a test")
    for engine in engines:
        engine.feed(random_bars(5, seed=5), **LINE)
    text = exposition.generate_latest(registry).decode()
    families = [family.name for family in parser.text_string_to_metric_families(text)]
    assert len(set(families)) == len(families) == 18
    value = registry.get_sample_value
    for name, serving in (("index", 1), ("coins", 0)):
        assert value("hrm_serving", {"engine": name}) == serving
        assert value("hrm_artifact", {"engine": name, "id": model.id}) == 1
        assert value("hrm_stream_ready", {"engine": name, **LINE}) == 0
        assert value("hrm_decision_seconds_count", {"engine": name}) == 0
    for engine in engines:
        engine.close()
    assert repr(engines[0]).startswith("LiveEngine(index, artifact-1, ")


def test_a_second_collector_or_a_name_twice_is_refused(
    engine: LiveEngine, model: Model, registry: Any
) -> None:
    from hrm_runtime.live.prometheus import EngineCollector

    with LiveEngine(model) as other:
        with pytest.raises(ValueError, match="Duplicated timeseries in CollectorRegistry"):
            registry.register(EngineCollector(other))
        with pytest.raises(BadInput, match=r"a name of its own for each, found \['', ''\]; give"):
            EngineCollector(engine, other)
