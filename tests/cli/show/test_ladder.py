"""What a person sees of an export: the passes, the ladder, and where two sides part."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console
from terminal import Table

from hrm_cli.show import console, ladder
from hrm_export.graph.build import Change
from hrm_runtime.artifact.contract import OUTPUTS, Flip, GapBand, OutputParity, Stage

Said = Callable[..., list[str]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """The lines that are shown of something, without frames."""
    written = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=written, width=1000))

    def shown(what: Callable[..., None], *arguments: object) -> list[str]:
        what(*arguments)
        lines = [line.strip("┃│ ").rstrip() for line in written.getvalue().splitlines()]
        return [line for line in lines if line and not set(line) & set("┏┡├└")]

    return shown


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("┃", "│").split("│")]


def stage(
    name: str = "artifact",
    *,
    passed: bool = True,
    gated: bool = True,
    beyond: int = 0,
    flips: int = 0,
    tolerance: float | None = 1e-3,
) -> Stage:
    outputs = {
        name: OutputParity(max_abs=2.0, max_rel=1e-4, tolerance=tolerance, beyond=0)
        for name in OUTPUTS
    }
    if beyond:
        outputs["value"] = OutputParity(max_abs=2.5, max_rel=0.25, tolerance=0.1, beyond=beyond)
    return Stage(
        stage=name,
        reference="torch eager",
        gated=gated,
        allowance=0.0,
        windows=2000,
        max_abs=2.5,
        max_rel=0.25 if beyond else 1e-4,
        outputs=outputs,
        action_agreement=1 - flips / 2000,
        by_gap=(
            GapBand(above=0.0, windows=0, same_action=0, same_decision=0),
            GapBand(above=1e-4, windows=1600, same_action=1599, same_decision=1200),
            GapBand(above=0.2, windows=400, same_action=400, same_decision=399),
        ),
        flips=tuple(Flip(window=7 * n, what="action", gap=0.001 * n) for n in range(flips)),
        growth=None,
        passed=passed,
    )


def test_passes_are_shown_with_their_changes(said: Said) -> None:
    changes = [Change("fuse SiLU", 2), Change("fold constants", 1234)]
    assert [cells(line) for line in said(ladder.changes, changes)] == [
        ["pass over the graph", "changes"],
        ["fuse SiLU", "2"],
        ["fold constants", "1,234"],
    ]


def test_the_ladder_has_a_line_for_each_stage(said: Said) -> None:
    stages = [
        stage("composed"),
        stage("fused", passed=False),
        stage("one", gated=False),
        stage("other", gated=False, passed=False),
    ]
    *lines, below = said(ladder.parity, stages)
    assert below == ladder.GATES
    assert [cells(line) for line in lines] == [
        ["stage", "against", "windows", "largest difference", "decisions equal"],
        ["composed", "torch eager", "2,000", "1.0e-04", "100.00%", "passed"],
        ["fused", "torch eager", "2,000", "1.0e-04", "100.00%", "FAILED"],
        ["one", "torch eager", "2,000", "1.0e-04", "100.00%", "within"],
        ["other", "torch eager", "2,000", "1.0e-04", "100.00%", "beyond"],
    ]


def test_outputs_beyond_their_tolerance_are_named(said: Said) -> None:
    *_, last = said(ladder.parity, [stage(passed=False, beyond=12)])
    assert last == (
        "artifact against torch eager: value differs by 2.5e-01, tolerance 1e-01, in 12 windows "
        "beyond it"
    )


def test_outputs_that_are_only_listed_are_not(said: Said) -> None:
    assert len(said(ladder.parity, [stage(tolerance=None)])) == 3


def test_agreement_is_shown_by_gap_where_decisions_differ(said: Said) -> None:
    _, _, _, title, more, *table, first, second = said(ladder.parity, [stage(flips=2)])
    assert f"{title} {more}" == "artifact against torch eager, by the latter's top-two gap"
    assert [cells(line) for line in table] == [
        ["gap from", "windows", "same action", "same decision"],
        ["0", "0"],
        ["0.0001", "1,600", "99.94%", "75.00%"],
        ["0.2", "400", "100.00%", "99.75%"],
    ]
    assert first == "window 0: action differs, top-two gap 0.00e+00"
    assert second == "window 7: action differs, top-two gap 1.00e-03"


@pytest.mark.parametrize(
    ("flips", "more"), [(10, None), (11, "and 1 more"), (1500, "and 1,490 more")]
)
def test_ten_decisions_that_differ_are_listed(flips: int, more: str | None, said: Said) -> None:
    lines = said(ladder.parity, [stage(flips=flips)])
    listed = [line for line in lines if line.startswith("window ")]
    assert len(listed) == 10
    assert listed[-1] == "window 63: action differs, top-two gap 9.00e-03"
    assert lines[-1] == (more or listed[-1])


@pytest.mark.parametrize(
    ("twin", "gated", "held"),
    [
        ("quantised", False, "It is told only. hrm train --quantise --init-from CHECKPOINT trains"),
        ("quantised", True, "what was trained and is judged is torch eager, quantised."),
        ("float16 weights", False, "a small change moves. It is told only."),
    ],
)
def test_what_fewer_bits_do_is_explained(said: Said, twin: str, gated: bool, held: str) -> None:
    last = replace(stage(gated=gated), flips=FLIPS)
    lines = said(ladder.parity, [replace(stage(), reference=f"torch eager, {twin}"), last])
    assert ladder.GATES in lines
    (line,) = (line for line in lines if line.startswith("artifact against torch eager: "))
    assert line.startswith(
        "artifact against torch eager: 1 of 2,000 differ in the action, 2 in lots alone, 0 in"
    )
    assert held in line


def test_decisions_that_must_agree_are_not_explained_away(said: Said) -> None:
    lines = said(ladder.parity, [replace(stage(passed=False), flips=FLIPS)])
    assert not any("in lots alone" in line for line in lines)


FLIPS = (
    Flip(window=1, what="action", gap=0.001),
    Flip(window=2, what="quantity", gap=0.1),
    Flip(window=5, what="quantity", gap=0.2),
)


@pytest.mark.parametrize("width", [60, 80])
def test_a_ladder_is_shown_whole(width: int, whole: Table) -> None:
    output = OutputParity(max_abs=1.0, max_rel=0.1, tolerance=None, beyond=0)
    stage = Stage(
        stage="artifact, hard windows",
        reference="torch eager, float16 weights",
        gated=True,
        allowance=0.0,
        windows=123_456,
        max_abs=1.0,
        max_rel=0.125,
        outputs={"value": output},
        action_agreement=0.99875,
        by_gap=(GapBand(above=1e-4, windows=123_456, same_action=0, same_decision=0),),
        flips=(),
        growth=None,
        passed=False,
    )
    names, more, *lines = whole(width, ladder.parity, [stage])
    assert [*zip(names, more, strict=True)][2:] == [
        ("", "windows"), ("largest", "difference"), ("decisions", "equal"), ("", ""),
    ]  # fmt: skip
    assert lines[0][2:] == ["123,456", "1.2e-01", "99.88%", "FAILED"]
    table = list(zip(*lines, strict=True))
    assert " ".join(table[0]).split() == stage.stage.split()
    assert " ".join(table[1]).split() == stage.reference.split()
