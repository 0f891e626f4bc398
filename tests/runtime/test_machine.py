import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hrm_runtime import LiveSettings
from hrm_runtime import machine as module
from hrm_runtime.machine import machine, one_core, pin, resident_megabytes, usable_cores

XEON = """processor\t: 0
model name\t: A Xeon
flags\t\t: fpu avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Another
flags\t\t: amx_int8
"""


@pytest.fixture
def processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is read instead of /proc/cpuinfo; not there yet."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "_PROCESSORS", path)
    return path


def test_the_first_processor_is_told_with_what_makes_products_fast(processors: Path) -> None:
    processors.write_text(XEON)
    found = machine(())
    assert (found.cpu, found.instruction_sets) == ("A Xeon", ("avx2", "avx512", "vnni"))
    assert found.cores == os.cpu_count()


def test_a_processor_that_has_none_of_them_is_told_so(processors: Path) -> None:
    processors.write_text("model name : A Pentium\nflags : fpu sse2\n")
    assert machine(()).instruction_sets == ()


def test_what_the_system_does_not_tell_is_left_open(
    processors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    found = machine(())
    assert (found.cpu, found.instruction_sets) == ("arm64", None)
    assert not processors.exists()


def test_versions_are_those_of_what_is_installed() -> None:
    found = machine(("numpy", "no-such-library")).versions
    assert found == {"numpy": np.__version__}


@pytest.mark.parametrize(("allowed", "expected"), [({0, 1, 2}, 1), ({3}, 3), ({7, 5}, 7)])
def test_the_second_core_is_taken_or_the_only_one(
    allowed: set[int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    assert one_core() == expected
    assert machine(()).core == expected


def test_nothing_is_pinned_where_that_cannot_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert one_core() is None
    pin(None)


def test_a_process_is_pinned_to_the_core_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *of: asked.append(of), raising=False)
    pin(3)
    assert asked == [(0, {3})]


def test_memory_is_what_this_process_holds_now() -> None:
    before = resident_megabytes()
    held = np.ones(10_000_000)  # 80 MB
    after = resident_megabytes()
    assert before is not None
    assert after is not None
    assert 70 < after - before < 90
    assert held.all()


@pytest.mark.parametrize(("system", "expected"), [("linux", 2.048), ("darwin", 0.002)])
def test_elsewhere_it_is_the_most_it_held(
    system: str, expected: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    used = SimpleNamespace(
        RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=2000)
    )  # KiB, but bytes on macOS
    monkeypatch.setattr(module, "_OWN_MEMORY", tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "resource", used)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "platform", system)
    assert resident_megabytes() == pytest.approx(expected)


def test_where_neither_is_told_memory_is_left_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_OWN_MEMORY", tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "resource", None)  # type: ignore[arg-type]
    assert resident_megabytes() is None


def test_usable_cores_are_those_of_the_process_where_the_system_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 8}, raising=False)
    assert usable_cores() == LiveSettings().workers == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert (usable_cores(), LiveSettings().workers) == (64, 4)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
