"""A comparison counts every difference and knows which of them a gate excuses."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hrm_export.proof.comparison import Comparison
from hrm_export.proof.gates import (
    FLOAT,
    FLOAT_TOLERANCES,
    GAPS,
    INT8,
    INT8_TOLERANCES,
    OF_PRECISION,
    QUANTISED,
    Gate,
)
from hrm_runtime import Account, Action
from hrm_runtime.artifact.contract import (
    LARGEST_ALLOWANCE,
    LARGEST_TOLERANCES,
    OUTPUTS,
    GapBand,
    Growth,
    OutputParity,
    Stage,
)
from hrm_runtime.artifact.segments import Outputs, decisions

FLAT = Account.flat(1e6)
LONG = Account(1e6, 3.0, 100.0, 0.0, True, 0.01)
BUY = [1.0, 0.0, -1e4, -1e4, 0.5]
CLOSE = [-1e4, -1e4, 1.0, -1e4, 0.5]
HALT, GO_ON = (0.9, 0.1), (0.1, 0.9)


def outputs_of(
    logits: list[float] = BUY, quantity: float = 2.5, q_values: tuple[float, float] = HALT
) -> Outputs:
    """One window."""
    return {
        "action_type": np.array([logits], dtype=np.float32),
        "quantity": np.array([quantity], dtype=np.float32),
        "value": np.zeros(1, np.float32),
        "q_values": np.array([q_values], dtype=np.float32),
        "z_H_out": np.zeros((1, 2, 2), np.float32),
        "z_L_out": np.zeros((1, 2, 2), np.float32),
        "l_residual": np.zeros((1, 1, 1), np.float32),
        "h_residual": np.zeros((1, 1), np.float32),
    }


def with_gap(gap: float) -> list[float]:
    """Logits of buying and selling whose probabilities differ by `gap`, buying ahead."""
    return [float(np.log(1 + gap)), float(np.log(1 - gap)), -1e4, -1e4, -1e4]


def swapped(logits: list[float]) -> list[float]:
    return [logits[1], logits[0], *logits[2:]]


def compared(
    gate: Gate,
    expected: Sequence[Outputs],
    found: Sequence[Outputs],
    account: Account = FLAT,
    among: int = 1,
) -> Stage:
    """The comparison of one window, and of others that are equal."""
    comparison = Comparison(gate)
    for _ in range(among - 1):
        comparison.add([FLAT], [outputs_of()], [outputs_of()])
    comparison.add([account], expected, found)
    return comparison.stage("artifact", "torch eager")


def loose(gate: Gate, *kept: str) -> Gate:
    """The gate for decisions alone: with the tolerances of lots and of those `kept`, no other."""
    assert gate.tolerances is not None
    own = {name: gate.tolerances[name] for name in ("quantity", *kept)}
    return replace(gate, tolerances={**dict.fromkeys(OUTPUTS, 1e9), **own})


# the gates


def test_each_precision_has_its_gate() -> None:
    assert OF_PRECISION == {"fp32": FLOAT, "fp16": FLOAT, "int8": INT8}
    for precision, gate in OF_PRECISION.items():
        assert gate.tolerances is not None
        assert gate.tolerances.keys() == set(OUTPUTS)
        assert max(gate.tolerances.values()) <= LARGEST_TOLERANCES[precision]
        assert gate.allowance <= LARGEST_ALLOWANCE
    assert (FLOAT.allowance, QUANTISED.allowance) == (0.0, 0.0)
    assert (FLOAT.tolerances, INT8.tolerances) == (FLOAT_TOLERANCES, INT8_TOLERANCES)
    assert all(FLOAT_TOLERANCES[name] < INT8_TOLERANCES[name] for name in OUTPUTS)


@pytest.mark.parametrize(
    ("gate", "gap", "passed"),
    [
        (FLOAT, 0.9e-4, True),
        (FLOAT, 1.2e-4, False),
        (INT8, 1e-6, False),
        (INT8, 0.1, False),
        (QUANTISED, 0.19, True),
        (QUANTISED, 0.21, False),
    ],
    ids=["tie", "clear", "int8 tie", "int8 clear", "quantised unsure", "quantised sure"],
)
def test_an_action_may_flip_only_near_a_tie(gate: Gate, gap: float, passed: bool) -> None:
    gate = gate if gate.tolerances is None else loose(gate)
    logits = with_gap(gap)
    stage = compared(gate, [outputs_of(logits)], [outputs_of(swapped(logits))])
    (flip,) = stage.flips
    assert (flip.window, flip.what) == (0, "action")
    assert flip.gap == pytest.approx(gap, rel=1e-2)
    assert stage.action_agreement == 0.0
    assert stage.passed is passed


@pytest.mark.parametrize(
    ("gate", "margin", "passed"),
    [
        (FLOAT, 0.9e-4, True),
        (FLOAT, 1.2e-4, False),
        (INT8, 0.009, True),
        (INT8, 0.011, False),
        (QUANTISED, 0.3, True),
    ],
    ids=["tie", "clear", "int8 tie", "int8 clear", "quantised: segments alone do not count"],
)
@pytest.mark.parametrize("sooner", [True, False])
def test_segments_may_flip_only_where_halting_is_near_a_tie(
    sooner: bool, gate: Gate, margin: float, passed: bool
) -> None:
    gate = gate if gate.tolerances is None else loose(gate)
    halting, going = (0.5 + margin, 0.5), (0.5, 0.5 + margin)
    other = (0.5, 0.5)
    if sooner:
        expected = [outputs_of(q_values=halting)]
        found = [outputs_of(q_values=other), outputs_of()]
    else:
        expected = [outputs_of(q_values=going), outputs_of()]  # where they do not part it is clear
        found = [outputs_of(q_values=(0.51, 0.5))]
    stage = compared(gate, expected, found)
    assert [flip.what for flip in stage.flips] == ["segments"]
    assert stage.passed is passed


@pytest.mark.parametrize(
    ("gate", "margin", "gap", "passed"),
    [
        (FLOAT, 0.5e-4, 0.9, True),
        (INT8, 0.005, 0.9, True),
        (QUANTISED, 0.005, 0.9, True),
        (QUANTISED, 0.3, 0.1, True),
        (QUANTISED, 0.3, 0.9, False),
    ],
)
def test_whatever_follows_from_other_segments_is_excused_with_them(
    gate: Gate, margin: float, gap: float, passed: bool
) -> None:
    gate = gate if gate.tolerances is None else loose(gate)
    logits = with_gap(gap)
    expected = [outputs_of(logits, q_values=(0.5 + margin, 0.5))]
    found = [outputs_of(logits, q_values=(0.5, 0.5)), outputs_of(swapped(logits), 500.0)]
    stage = compared(gate, expected, found)
    assert [flip.what for flip in stage.flips] == ["segments"]
    assert stage.passed is passed


@pytest.mark.parametrize(
    ("gate", "reference", "found", "passed"),
    [
        (FLOAT, 4.0001, 3.9999, True),
        (FLOAT, 4.3, 6.3, False),
        (FLOAT, 10_000.5, 10_015.5, True),
        (FLOAT, 10_000.5, 10_025.5, False),
        (INT8, 4.3, 5.3, True),
        (INT8, 4.3, 6.3, False),
        (INT8, 100.5, 124.5, True),
        (INT8, 100.5, 126.5, False),
        (INT8, 7.99, 9.98, False),  # within the output's tolerance, but by more than one lot
        (QUANTISED, 4.3, 4000.3, True),
    ],
)
def test_lots_may_differ_by_what_rounding_explains(
    gate: Gate, reference: float, found: float, passed: bool
) -> None:
    gate = gate if gate.tolerances is None else loose(gate)
    stage = compared(gate, [outputs_of(quantity=reference)], [outputs_of(quantity=found)])
    assert [flip.what for flip in stage.flips] == ["quantity"]
    assert stage.passed is passed


def test_lots_of_a_close_come_from_the_account_and_agree() -> None:
    gate = replace(FLOAT, tolerances=dict.fromkeys(OUTPUTS, 1e9))
    stage = compared(gate, [outputs_of(CLOSE, 4.5)], [outputs_of(CLOSE, 900.5)], LONG)
    assert stage.flips == ()
    assert stage.passed
    (decision,) = decisions([outputs_of(CLOSE, 900.5)], [LONG], "")
    assert (decision.action, decision.quantity) == (Action.CLOSE_LONG, 3.0)


@pytest.mark.parametrize(
    ("windows", "wrong", "passed"),
    [(200, 1, True), (199, 1, False), (400, 2, True), (400, 3, False)],
)
@pytest.mark.parametrize("beyond", [True, False], ids=["outputs", "decisions"])
def test_integers_may_go_elsewhere_in_a_share_of_windows(
    beyond: bool, windows: int, wrong: int, passed: bool
) -> None:
    comparison = Comparison(INT8 if beyond else loose(INT8))
    for number in range(windows):
        found = outputs_of(swapped(BUY)) if number < wrong and not beyond else outputs_of()
        if number < wrong and beyond:
            found["value"] = np.float32([0.2])
        comparison.add([FLAT], [outputs_of()], [found])
    stage = comparison.stage("artifact", "torch eager, quantised")
    assert len(stage.flips) == (0 if beyond else wrong)
    assert stage.outputs["value"].beyond == (wrong if beyond else 0)
    assert stage.allowance == 0.005
    assert stage.passed is passed


def test_windows_beyond_and_decisions_that_differ_are_not_added_up() -> None:
    comparison = Comparison(loose(INT8, "value"))
    for number in range(200):
        found = outputs_of(swapped(BUY)) if number == 0 else outputs_of()
        found["value"] = np.float32([0.2 if number == 1 else 0.0])
        comparison.add([FLAT], [outputs_of()], [found])
    assert comparison.stage("a", "b").passed


@pytest.mark.parametrize("gate", [FLOAT, INT8])
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1.0])
def test_each_output_alone_can_fail_the_gate(gate: Gate, name: str, wrong: float) -> None:
    found = outputs_of()
    found[name] = found[name].copy()
    found[name].flat[-1] += wrong
    stage = compared(gate, [outputs_of()], [found])
    assert not stage.passed
    assert [n for n, output in stage.outputs.items() if output.beyond] == [name]
    expected = 1.0 / 2.5 if name == "quantity" else abs(wrong)
    if not np.isfinite(wrong):
        expected = np.inf
    assert stage.outputs[name].max_rel == pytest.approx(expected)
    assert stage.outputs[name].max_abs == pytest.approx(1.0 if np.isfinite(wrong) else np.inf)


def test_what_is_only_listed_never_fails() -> None:
    found = outputs_of()
    found["value"] = np.float32([7.0])
    stage = compared(QUANTISED, [outputs_of()], [found])
    assert stage.outputs["value"] == OutputParity(
        max_abs=7.0, max_rel=7.0, tolerance=None, beyond=0
    )
    assert stage.passed


# what is counted


def test_differences_are_relative_above_one_and_absolute_below() -> None:
    expected, found = outputs_of(quantity=1000.0), outputs_of(quantity=1001.0)
    expected["value"], found["value"] = np.float32([0.01]), np.float32([0.02])
    stage = compared(FLOAT, [expected], [found])
    assert stage.outputs["quantity"].max_abs == pytest.approx(1.0)
    assert stage.outputs["quantity"].max_rel == pytest.approx(1e-3)
    assert stage.outputs["quantity"].tolerance == FLOAT_TOLERANCES["quantity"]
    assert stage.outputs["value"].max_rel == pytest.approx(0.01)
    assert (stage.max_abs, stage.max_rel) == pytest.approx((1.0, 0.01))
    assert [name for name, output in stage.outputs.items() if output.beyond] == ["value"]


def test_the_largest_of_all_segments_and_batches_counts_each_window_once() -> None:
    comparison = Comparison(FLOAT)
    for first, second in ((0.0, 0.3), (0.2, 0.1), (0.0, 0.0), (0.0005, 0.0)):
        found = [outputs_of(q_values=GO_ON), outputs_of()]
        for outputs, error in zip(found, (first, second), strict=True):
            outputs["value"] = np.array([error], np.float32)
        comparison.add([FLAT], [outputs_of(q_values=GO_ON), outputs_of()], found)
    stage = comparison.stage("a", "b")
    assert stage.windows == 4
    assert stage.outputs["value"].max_rel == pytest.approx(0.3)
    assert stage.outputs["value"].beyond == 2


def test_windows_of_a_batch_are_told_apart() -> None:
    expected = {name: np.repeat(array, 3, axis=0) for name, array in outputs_of().items()}
    found = {name: array.copy() for name, array in expected.items()}
    found["z_H_out"][1, 0, 1] = 0.25
    found["z_H_out"][1, 1, 1] = np.nan
    found["action_type"][2] = swapped(BUY)
    comparison = Comparison(loose(FLOAT, "z_H_out"))
    comparison.add([FLAT], [outputs_of()], [outputs_of()])
    comparison.add([FLAT] * 3, [expected], [found])
    stage = comparison.stage("a", "b")
    assert [(flip.window, flip.what) for flip in stage.flips] == [(2, "action"), (3, "action")]
    assert stage.outputs["z_H_out"].beyond == 1
    assert stage.outputs["z_H_out"].max_rel == np.inf
    assert stage.action_agreement == 0.5
    assert not stage.passed


def test_a_difference_is_named_after_what_comes_first() -> None:
    cases: list[tuple[list[Outputs], str]] = [
        ([outputs_of(swapped(BUY), 9.5, GO_ON), outputs_of()], "segments"),
        ([outputs_of(swapped(BUY), 9.5)], "action"),
        ([outputs_of(BUY, 9.5)], "quantity"),
    ]
    for found, what in cases:
        (flip,) = compared(FLOAT, [outputs_of()], found).flips
        assert flip.what == what


def test_bands_count_windows_actions_and_decisions_by_the_reference_s_gap() -> None:
    found: list[tuple[float, dict[str, Any]]] = [
        (0.00005, {}),
        (0.0002, {"logits": "swapped"}),
        (0.005, {}),
        (0.005, {"quantity": 7.5}),
        (0.03, {"q_values": GO_ON}),
        (0.06, {}),
        (0.19, {}),
        (0.21, {"logits": "swapped"}),
        (0.9, {}),
        (0.9, {"quantity": 8.5}),
    ]
    comparison = Comparison(QUANTISED)
    for gap, changes in found:
        logits = with_gap(gap)
        other = changes | (
            {"logits": swapped(logits)} if "logits" in changes else {"logits": logits}
        )
        comparison.add([FLAT], [outputs_of(logits)], [outputs_of(**other), outputs_of(logits)])
    stage = comparison.stage("a", "b")
    assert stage.by_gap == tuple(
        GapBand(above=above, windows=windows, same_action=actions, same_decision=same)
        for above, windows, actions, same in (
            (0.0, 1, 1, 1),
            (1e-4, 3, 2, 1),
            (0.01, 1, 1, 0),
            (0.05, 2, 2, 2),
            (0.2, 3, 2, 1),
        )
    )
    assert tuple(band.above for band in stage.by_gap) == GAPS
    assert [flip.window for flip in stage.flips] == [1, 3, 4, 7, 9]
    assert stage.action_agreement == pytest.approx(0.5)


def test_a_gap_that_begins_a_band_is_in_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = iter(GAPS)
    monkeypatch.setattr("hrm_export.proof.comparison.top_two_gap", lambda _: next(edges))
    comparison = Comparison(FLOAT)
    for _ in GAPS:
        comparison.add([FLAT], [outputs_of()], [outputs_of()])
    assert [band.windows for band in comparison.stage("a", "b").by_gap] == [1] * 5


def test_a_tie_is_in_the_lowest_band() -> None:
    tie = [outputs_of([0.0, 0.0, -1e4, -1e4, -1e4])]
    assert [band.windows for band in compared(FLOAT, tie, tie).by_gap] == [1, 0, 0, 0, 0]


def test_a_stage_is_what_was_asked_for() -> None:
    growth = Growth(z_L=((1e-7,),), z_H=(2e-7,))
    comparison = Comparison(FLOAT)
    comparison.add([FLAT], [outputs_of()], [outputs_of()])
    stage = comparison.stage("composed", "torch eager", gated=False, growth=growth)
    assert stage == Stage(
        stage="composed",
        reference="torch eager",
        gated=False,
        allowance=0.0,
        windows=1,
        max_abs=0.0,
        max_rel=0.0,
        outputs={
            name: OutputParity(max_abs=0.0, max_rel=0.0, tolerance=tolerance, beyond=0)
            for name, tolerance in FLOAT_TOLERANCES.items()
        },
        action_agreement=1.0,
        by_gap=(
            GapBand(above=0.0, windows=0, same_action=0, same_decision=0),
            GapBand(above=1e-4, windows=0, same_action=0, same_decision=0),
            GapBand(above=0.01, windows=0, same_action=0, same_decision=0),
            GapBand(above=0.05, windows=1, same_action=1, same_decision=1),
            GapBand(above=0.2, windows=0, same_action=0, same_decision=0),
        ),
        flips=(),
        growth=growth,
        passed=True,
    )
    assert comparison.stage("a", "b").gated
