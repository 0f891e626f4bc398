"""`hrm bench`: one JSON object, a table, a picture; and what it refuses before it starts."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from command import Serving
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from processes import is_running, wait_for_the_end
from rich.console import Console
from typer.testing import CliRunner

import hrm_export.peers.bench
from hrm_cli.app import app
from hrm_cli.show import console, draw, speed
from hrm_cli.show.progress import stages
from hrm_runtime import ArtifactDamaged, BadInput
from hrm_runtime.artifact.contract import FORMAT_VERSION, MODEL
from hrm_runtime.machine import Machine
from hrm_runtime.measure import bench as measuring
from hrm_runtime.measure.bench import BATCHES, Bench, Latency, Result, Skipped

ARTIFACT = Path(__file__).parents[2] / "data" / f"artifact-{FORMAT_VERSION}"
DONE, GATE_FAILED, BAD_INPUT = 0, 1, 2

KEYS = [
    "name",
    "p50_ms",
    "p99_ms",
    "max_ms",
    "rows_per_s",
    "rss_mb",
    "load_s",
    "size_mb",
    "weights",
]


def result(name: str, p50_ms: float, **changes: Any) -> Result:
    made = Result(
        name=name,
        p50_ms=p50_ms,
        p99_ms=1.25 * p50_ms,
        max_ms=2 * p50_ms,
        rows_per_s={1: 1000 / p50_ms, 64: 1234.5},
        rss_mb=131.4,
        load_s=0.123,
        size_mb=28.0,
        weights="random",
    )
    return replace(made, **changes)


FOUND = Bench(
    results=(
        result("hrm int8", 8.9, weights="artifact"),
        result("products int8", 7.8, rss_mb=None, load_s=None, size_mb=None),
        result("torch eager", 123.4, size_mb=None),
        result("plain onnx", 31.4, note="opset 20; opset 23: p50 33 ms"),
        result("hrm fp32", 26.4, rows_per_s={1: 37.9}),
    ),
    skipped=(Skipped("openvino int8", "needs nncf: pip install '.[bench]'"),),
    decide_rows=Latency(p50_ms=9.5, p99_ms=18.75, max_ms=30.0),
    host=Machine(
        cpu="A Xeon",
        instruction_sets=("avx2", "vnni"),
        cores=2,
        core=1,
        os="Linux",
        python="3.11.7",
        versions={"onnxruntime": "1.32.0"},
    ),
)


def hrm(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of as few passes as there may be."""
    for name, value in (("ROUNDS", 2), ("BATCH_ROUNDS", 2), ("TURN", 0.0)):
        monkeypatch.setattr(measuring, name, value)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured; both ways of measuring find `FOUND`."""
    for module in (measuring, hrm_export.peers.bench):
        monkeypatch.setattr(module, "bench", lambda *_: FOUND)


# measuring


@pytest.mark.usefixtures("quick")
def test_an_artifact_alone_is_told_as_json() -> None:
    done = hrm("bench", ARTIFACT, "--json")
    assert done.exit_code == DONE, done.output
    said = json.loads(done.stdout)
    assert said.keys() == {"results", "host", "decide_rows", "skipped"}
    (own,) = said["results"]
    assert list(own) == KEYS
    assert (own["name"], own["weights"]) == ("hrm fp32", "artifact")
    assert own["size_mb"] == (ARTIFACT / MODEL).stat().st_size / 1e6
    assert list(own["rows_per_s"]) == [str(batch) for batch in BATCHES]
    assert said["decide_rows"].keys() == {"p50_ms", "p99_ms", "max_ms"}
    assert said["skipped"] == []
    assert said["host"].keys() == {
        "cpu", "instruction_sets", "cores", "core", "os", "python", "versions",
    }  # fmt: skip
    lines = done.stderr.splitlines()
    assert lines == ["opening hrm fp32", *(f"measuring at batch {batch}" for batch in BATCHES)]


@pytest.mark.usefixtures("quick")
def test_measuring_an_artifact_needs_no_training_library(tmp_path: Path, serving: Serving) -> None:
    quick = """
from hrm_runtime.measure import bench
bench.ROUNDS = bench.BATCH_ROUNDS = 2
bench.TURN = 0.0
"""
    done = serving("bench", ARTIFACT, "--picture", tmp_path / "bench.png", before=quick)
    assert done.returncode == DONE, done.stderr
    assert "hrm fp32" in done.stdout
    assert matplotlib.image.imread(tmp_path / "bench.png").ndim == 3


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills as POSIX does")
@pytest.mark.parametrize("killed_by", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("moment", ["opening hrm fp32", "measuring at batch 1"])
def test_the_worker_of_a_bench_that_was_killed_ends_too(
    killed_by: str, moment: str, serving: Serving
) -> None:
    telling = """
import os
import sys
from hrm_runtime.measure import bench
bench.TURN = 1e9  # it would compute for ever
class Told(bench.Worker):
    def __init__(self, *command):
        super().__init__(*command)
        print(os.getpid(), self._process.pid, file=sys.stderr, flush=True)
bench.Worker = Told
"""
    with serving.start("bench", ARTIFACT, before=telling, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "opening hrm fp32\n"
        own, worker = map(int, process.stderr.readline().split())
        if moment == "measuring at batch 1":
            assert process.stderr.readline() == f"{moment}\n"
        assert is_running(worker)
        os.kill(own, getattr(signal, killed_by))
        wait_for_the_end(worker)
        assert process.wait() == {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143}[killed_by]


@pytest.mark.usefixtures("found")
def test_peers_are_measured_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "bench", None)
    said = json.loads(hrm("bench", ARTIFACT, "--peers", "--json").stdout)
    assert [one["name"] for one in said["results"]] == [one.name for one in FOUND.results]
    assert said["results"][1]["rss_mb"] is None
    assert [one.get("note") for one in said["results"]] == [one.note for one in FOUND.results]
    assert list(said["results"][3]) == [*KEYS, "note"]
    assert said["skipped"] == [asdict(one) for one in FOUND.skipped]
    assert said["decide_rows"] == asdict(FOUND.decide_rows)  # type: ignore[arg-type]
    assert said["host"] == json.loads(json.dumps(asdict(FOUND.host)))


def test_without_torch_peers_are_refused_with_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("hrm_export")]:
        monkeypatch.delitem(sys.modules, name)
    done = hrm("bench", ARTIFACT, "--peers")
    assert done.exit_code == BAD_INPUT
    assert "hrm: bench needs torch: pip install '.[bench]'" in done.stderr


# refusing


def test_a_missing_artifact_exits_with_2() -> None:
    done = hrm("bench", "nowhere", "--json")
    assert (done.exit_code, done.stdout) == (BAD_INPUT, "")
    assert "nowhere: expected an artifact folder" in done.stderr


def test_a_damaged_artifact_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ArtifactDamaged("model.onnx: expected sha256 a, found b")

    monkeypatch.setattr(measuring, "load", refuse)
    done = hrm("bench", ARTIFACT)
    assert done.exit_code == BAD_INPUT
    assert "model.onnx: expected sha256 a, found b" in done.stderr


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("bench.jpg", "expected a name ending in .png"),
        ("nowhere/bench.png", "expected its folder to exist"),
        ("folder.png", "expected a file to write, found a folder"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_before_any_work(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "bench", None)
    Path("folder.png").mkdir()
    done = hrm("bench", ARTIFACT, "--picture", path)
    assert done.exit_code == BAD_INPUT
    assert f"{path}: {message}" in done.stderr


@pytest.mark.parametrize("closed", ["", "old.png"], ids=["folder", "file"])
def test_a_picture_where_nothing_may_be_written_is_refused(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path / closed)
    (tmp_path / "old.png").touch()
    with pytest.raises(BadInput, match="expected to write a picture there, but it is not allowed"):
        draw.require_picture(tmp_path / "old.png")


def test_an_artifact_whose_worker_fails_is_named_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = replace(
        FOUND, results=FOUND.results[1:], decide_rows=None, skipped=(Skipped("hrm int8", "no"),)
    )
    monkeypatch.setattr(measuring, "bench", lambda *_: failed)
    done = hrm("bench", ARTIFACT)
    assert done.exit_code == GATE_FAILED
    assert "not measured: hrm int8: no" in done.stdout
    assert "decide_rows" not in done.stdout
    assert json.loads(hrm("bench", ARTIFACT, "--json").stdout)["decide_rows"] is None


# showing


def test_a_narrow_terminal_shows_every_name_and_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "out", Console(width=60))
    slow = result("products int8", 1234.5, rss_mb=1234.5, load_s=123.4, size_mb=111.2)
    speed.speeds(replace(FOUND, results=(slow,)))
    shown = capsys.readouterr().out
    table = [line for line in shown.splitlines() if line[:1] in {"│", "┃"}]
    assert max(map(len, table)) <= 60
    assert "…" not in shown
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in table]
    names, units, row = cells
    assert names == ["", "p50", "p99", "max", "rows/s", "memory", "load", "file"]
    assert units == ["", "ms", "ms", "ms", "at 64", "MB", "s", "MB"]
    assert row == ["products int8", "1,234", "1,543", "2,469", "1,234", "1,234", "123", "111"]


@pytest.mark.usefixtures("found")
def test_the_table_has_a_line_for_each_and_names_what_is_not_in_it() -> None:
    done = hrm("bench", ARTIFACT)
    assert done.exit_code == DONE

    def row(name: str) -> list[str]:
        (line,) = [line for line in done.stdout.splitlines() if re.match(f"│ {name} +│", line)]
        return [cell.strip() for cell in line.strip("│").split("│")[1:]]

    assert row("hrm int8") == ["8.90", "11.1", "17.8", "1,234", "131", "0.12", "28.0"]
    assert row("products int8") == ["7.80", "9.75", "15.6", "1,234", "", "", ""]
    assert row("torch eager") == ["123", "154", "247", "1,234", "131", "0.12", ""]
    assert row("hrm fp32")[3] == ""
    for remark in (
        "In bold the artifact",
        "plain onnx: opset 20; opset 23: p50 33 ms",
        "decide_rows, all its segments: 9.50 ms p50, 18.8 ms p99, 30.0 ms at most",
        "not measured: openvino int8: needs nncf: pip install '.[bench]'",
        "A Xeon with avx2, vnni, all on core 1",
        "python 3.11.7, onnxruntime 1.32.0",
    ):
        assert remark in done.stdout
    assert max(map(len, done.stdout.splitlines()[:12])) <= 80


def test_what_a_machine_does_not_tell_is_not_shown() -> None:
    bare = replace(FOUND.host, instruction_sets=None, core=None)
    assert speed.where(bare)[0] == "A Xeon, not pinned to a core"


def test_an_artifact_alone_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    speed.speeds(replace(FOUND, results=FOUND.results[:1], skipped=()))
    assert "random weights" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, ""), (0.1234, "0.12"), (9.99, "9.99"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_numbers_have_three_digits(number: float | None, text: str) -> None:
    assert speed.short(number) == text


def test_a_terminal_has_one_bar_that_is_drawn_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(console, "err", terminal)
    with stages() as on_progress:
        before = written.getvalue()
        on_progress("opening hrm int8", 1, 3)
        on_progress("measuring at batch 4", 2, 4)
        drawn = written.getvalue().removeprefix(before)
    assert "opening hrm int8" in drawn
    assert "1/3" in drawn
    assert "measuring at batch 4" in drawn
    assert "2/4" in drawn


# drawing


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bench], Figure]:
    """The figure that would have been saved."""

    def drawn(found: Bench) -> Figure:
        kept: list[Figure] = []
        monkeypatch.setattr(draw, "_save", lambda figure, path: kept.append(figure))
        draw.bench(found, Path("unused.png"))
        (only,) = kept
        only.canvas.draw()
        return only

    return drawn


def test_the_picture_ranks_by_the_median_with_a_tick_at_the_99th_percentile(
    figure: Callable[[Bench], Figure],
) -> None:
    drawn = figure(FOUND)
    left, right = drawn.axes
    ranked = sorted(FOUND.results, key=lambda one: -one.p50_ms)
    assert [label.get_text() for label in left.get_yticklabels()] == [one.name for one in ranked]
    for panel, bar, tick in ((left, "p50_ms", "p99_ms"), (right, "rss_mb", "size_mb")):
        bars = [getattr(one, bar) for one in ranked]
        widths = [patch.get_width() for patch in panel.patches]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(widths, np.array(bars, dtype=float))
        (ticks,) = panel.lines
        marks = [getattr(one, tick) for one in ranked]
        np.testing.assert_array_equal(ticks.get_xdata(), np.array(marks, dtype=float))
        known = [value for value in (*bars, *marks) if value is not None]
        assert panel.get_xlim()[1] > max(known)
    assert [text.get_text() for text in left.texts][-1] == "7.80, p99 9.75"
    assert "131, file 28.0" in [text.get_text() for text in right.texts]
    assert "131" in [text.get_text() for text in right.texts]
    assert len(right.texts) == len(ranked) - 1  # the products are no process of their own


def test_the_picture_tells_the_artifact_its_precisions_and_others_apart(
    figure: Callable[[Bench], Figure],
) -> None:
    drawn = figure(FOUND)
    colours = {
        label.get_text(): to_hex(patch.get_facecolor())
        for label, patch in zip(drawn.axes[0].get_yticklabels(), drawn.axes[0].patches, strict=True)
    }
    assert colours == {
        "hrm int8": draw.DARK,
        "hrm fp32": draw.LIGHT,
        "products int8": draw.GREY,
        "torch eager": draw.SAND,
        "plain onnx": draw.SAND,
    }
    (legend,) = drawn.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [*draw.KINDS.values(), "99th percentile; file"]
    (alone,) = figure(replace(FOUND, results=FOUND.results[:1])).legends
    assert [text.get_text() for text in alone.get_texts()] == [
        "the artifact", "99th percentile; file",
    ]  # fmt: skip


@pytest.mark.usefixtures("found")
def test_the_picture_is_written_after_the_table(tmp_path: Path) -> None:
    path = tmp_path / "bench.png"
    done = hrm("bench", ARTIFACT, "--picture", path)
    assert done.exit_code == DONE
    assert f"wrote {path}" in done.stderr
    assert matplotlib.image.imread(path).ndim == 3
