"""What is measured, told by workers whose times are known; then the frozen artifact itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_windows import Windows

from hrm_runtime import ArtifactNotFound, Contract, Model
from hrm_runtime.artifact.contract import MODEL
from hrm_runtime.artifact.decision import Decision
from hrm_runtime.artifact.golden import Golden
from hrm_runtime.measure import bench, runner
from hrm_runtime.measure.bench import (
    BATCHES,
    Bench,
    Latency,
    Result,
    Site,
    Skipped,
    Variant,
    latency,
    measure,
)
from hrm_runtime.measure.turns import Worker, read_inputs

FAKE = """
import json, sys
name, log, dies = sys.argv[1:]
def say(**fields):
    print(json.dumps(fields), flush=True)
if dies == "while opening":
    sys.exit("no such network")
say(load_s=0.25, rss_mb=100.0)
for number, line in enumerate(sys.stdin):
    order = json.loads(line)
    with open(log, "a") as file:
        file.write(json.dumps([name, order]) + "\\n")
    if dies == f"at order {number}":
        sys.exit("out of memory")
    ms = 1.0 + number if order["batch"] == 1 else 16.0 + number
    say(ms=[1000.0] if order["what"] == "decision" else [ms] * order["least"])
"""
"""A worker that takes 1 ms for a pass when first told to, and 1 ms more each time."""

Fake = Callable[..., Variant]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What fake workers were told, in order."""
    return tmp_path / "orders"


@pytest.fixture
def fake(log: Path) -> Fake:
    def make(name: str, dies: str = "", **changes: Any) -> Variant:
        command = ("-c", FAKE, name, str(log), dies)
        return Variant(name=name, weights="random", command=command, **changes)

    return make


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four at batch 1, three at others of which the first does not count."""
    monkeypatch.setattr(bench, "ROUNDS", 4)
    monkeypatch.setattr(bench, "BATCH_ROUNDS", 3)
    monkeypatch.setattr(bench, "TURN", 0.0)


def measured(*variants: Variant) -> Bench:
    return measure(variants, lambda *_: None)


def orders(log: Path) -> list[tuple[str, dict[str, Any]]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def test_percentiles_are_those_of_all_calls() -> None:
    found = latency([float(ms) for ms in reversed(range(1, 102))])
    assert found == Latency(p50_ms=51.0, p99_ms=100.0, max_ms=101.0)


@pytest.mark.usefixtures("few_rounds")
def test_a_variant_is_told_by_its_passes(fake: Fake, tmp_path: Path) -> None:
    files = []
    for name, size in (("a.xml", 500_000), ("a.bin", 1_500_000)):
        (tmp_path / name).write_bytes(bytes(size))
        files.append(tmp_path / name)
    found = measured(fake("one", files=tuple(files)))
    # orders 0 to 3 are at batch 1, three passes each; the first of three at the others is dropped
    assert found.results == (
        Result(
            name="one",
            p50_ms=2.5,
            p99_ms=4.0,
            max_ms=4.0,
            rows_per_s={
                1: 1000 / 2.5,
                4: 4000 / (16 + 5.5),
                16: 16_000 / (16 + 8.5),
                64: 64_000 / (16 + 11.5),
            },
            rss_mb=100.0,
            load_s=0.25,
            size_mb=2.0,
            weights="random",
        ),
    )
    assert found.skipped == ()
    assert found.decide_rows is None
    assert found.host == bench.machine(bench.LIBRARIES)


@pytest.mark.usefixtures("few_rounds")
def test_what_does_not_apply_is_left_open(fake: Fake) -> None:
    (found,) = measured(fake("products", served=False, batches=(1, 16))).results
    assert (found.rss_mb, found.load_s, found.size_mb) == (None, None, None)
    assert found.rows_per_s.keys() == {1, 16}


@pytest.mark.usefixtures("few_rounds")
def test_decisions_are_timed_apart_from_passes(fake: Fake) -> None:
    found = measured(fake("one", decides=True))
    assert found.decide_rows == Latency(p50_ms=1000.0, p99_ms=1000.0, max_ms=1000.0)
    assert found.results[0].max_ms < 10


@pytest.mark.usefixtures("few_rounds")
def test_every_round_gives_each_a_turn_in_an_order_of_its_own(fake: Fake, log: Path) -> None:
    names = ["a", "b", "c", "d"]
    measured(*map(fake, names))
    told = orders(log)
    rounds = [told[start : start + 4] for start in range(0, len(told), 4)]
    assert len(rounds) == 4 + 3 * (len(BATCHES) - 1)
    taken = [[name for name, _ in one] for one in rounds]
    assert all(sorted(one) == names for one in taken)
    assert len({tuple(one) for one in taken}) > 6
    singles = {"what": "pass", "batch": 1, "seconds": 0.0, "least": bench.LEAST, "untimed": 1}
    assert all(order == singles for one in rounds[:4] for _, order in one)
    batches = [{order["batch"] for _, order in one} for one in rounds[4:]]
    assert batches == [{batch} for batch in BATCHES[1:] for _ in range(3)]


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.parametrize(
    ("dies", "reason"),
    [
        ("while opening", "exit code 1: no such network"),
        ("at order 2", "exit code 1: out of memory"),
        ("at order 5", "exit code 1: out of memory"),
    ],
)
def test_one_that_fails_is_named_and_the_others_go_on(dies: str, reason: str, fake: Fake) -> None:
    found = measured(fake("first"), fake("bad", dies), fake("last"))
    assert [result.name for result in found.results] == ["first", "last"]
    assert found.skipped == (Skipped("bad", reason),)
    assert found.results[1] == replace(found.results[0], name="last")


@pytest.mark.usefixtures("few_rounds")
def test_nothing_is_left_running(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Worker] = []

    class Known(Worker):
        def __init__(self, *command: str) -> None:
            super().__init__(*command)
            started.append(self)

    def stop(text: str, done: int, _: int) -> None:
        if text == "measuring at batch 4" and done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(bench, "Worker", Known)
    measured(fake("a", "at order 2"))
    with pytest.raises(KeyboardInterrupt):
        measure([fake("b"), fake("c")], stop)
    assert len(started) == 3
    assert all(worker._process.returncode is not None for worker in started)


@pytest.mark.usefixtures("few_rounds")
def test_progress_is_told_by_stage(fake: Fake) -> None:
    told: list[tuple[str, int, int]] = []
    measure([fake("a"), fake("b")], lambda *stage: told.append(stage))
    assert told == [
        ("opening a", 0, 2),
        ("opening b", 1, 2),
        *(("measuring at batch 1", number, 4) for number in range(4)),
        *((f"measuring at batch {b}", number, 3) for b in BATCHES[1:] for number in range(3)),
    ]


# the artifact


@pytest.mark.usefixtures("few_rounds")
def test_the_artifact_alone(artifact: Path) -> None:
    found = bench.bench(artifact)
    (own,) = found.results
    assert (own.name, own.weights, own.note) == ("hrm fp32", "artifact", None)
    assert own.size_mb == (artifact / MODEL).stat().st_size / 1e6
    assert own.rows_per_s.keys() == set(BATCHES)
    assert 0 < own.p50_ms <= own.p99_ms <= own.max_ms
    assert found.decide_rows is not None
    assert 0 < found.decide_rows.p50_ms <= found.decide_rows.max_ms
    assert own.load_s is not None
    assert own.load_s > 0
    assert own.rss_mb is None or 20 < own.rss_mb < 1000
    assert found.skipped == ()
    assert found.host.versions.keys() == {"hrm", "numpy", "onnxruntime", "TA-Lib"}


@pytest.mark.usefixtures("few_rounds")
def test_others_are_measured_beside_it_on_its_golden_windows(
    artifact: Path, golden: Golden, contract: Contract, fake: Fake
) -> None:
    sites: list[Site] = []

    def others(site: Site, _: object) -> tuple[list[Variant], list[Skipped]]:
        sites.append(site)
        inputs = read_inputs(site.inputs)
        for name, found in zip(("features", "account", "instrument"), inputs, strict=False):
            np.testing.assert_array_equal(found, getattr(golden, name), strict=True)
        graph = site.folder / "graph.onnx"
        graph.write_bytes((artifact / MODEL).read_bytes())
        same = Variant(
            name="same", weights="random", command=site.own_worker(graph), files=(graph,)
        )
        return [same, fake("bad", "while opening")], [Skipped("absent", "no package")]

    found = bench.bench(artifact, others=others, libraries=["numpy"])
    assert [(one.name, one.weights) for one in found.results] == [
        ("hrm fp32", "artifact"),
        ("same", "random"),
    ]
    assert found.results[0].size_mb == found.results[1].size_mb
    assert [one.name for one in found.skipped] == ["absent", "bad"]
    assert found.host.versions.keys() == {"numpy"}
    (site,) = sites
    assert site.contract == contract
    assert not site.folder.exists()


def test_an_artifact_that_cannot_be_loaded_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "Worker", None)
    with pytest.raises(ArtifactNotFound, match="expected an artifact folder"):
        bench.bench(tmp_path / "absent")


# its worker


def test_the_worker_runs_the_artifact_and_decides_on_its_golden_windows(
    artifact: Path, model: Model, golden: Golden, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided: list[Decision] = []
    decide_rows = Model.decide_rows

    def remember(self: Model, *args: Any, **kwargs: Any) -> Decision:
        decided.append(decide_rows(self, *args, **kwargs))
        return decided[-1]

    opened = runner._artifact(str(artifact))()
    monkeypatch.setattr(Model, "decide_rows", remember)
    assert opened.decide is not None
    for number in (0, 1, 2, 3, 4):
        opened.decide(number)
    expected = golden.actions[[0, 1, 2, 3, 0]].tolist()
    assert [int(decision.action) for decision in decided] == expected
    found: Any = opened.run(*windows.arrays)
    for name, output in model.run(*windows.arrays).items():
        np.testing.assert_array_equal(found[name], output)


def test_the_worker_serves_another_graph_under_the_same_contract(
    artifact: Path, model: Model, windows: Windows
) -> None:
    opened = runner._graph(str(artifact), str(artifact / MODEL))()
    assert opened.decide is None
    found: Any = opened.run(*windows.arrays)
    for name, output in model.run(*windows.arrays).items():
        np.testing.assert_array_equal(found[name], output)


@pytest.mark.parametrize("graph", [None, "model.onnx"])
def test_the_worker_does_without_what_is_not_served(
    graph: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    for package in runner.NOT_SERVED:
        monkeypatch.setitem(runner.sys.modules, package, None)
    monkeypatch.setattr(runner, "answer", lambda *arguments: given.append(arguments))
    runner.main(["inputs.npz", "1", "artifact", *([graph] if graph else [])])
    ((prepare, inputs, core),) = given
    assert (inputs, core) == ("inputs.npz", "1")
    assert prepare.func is (runner._graph if graph else runner._artifact)
    assert prepare.args == ("artifact", *([graph] if graph else []))
