import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hrm_runtime import Account, Action, ArtifactDamaged, Decision, Model, Reason, SelfTestFailed
from hrm_runtime.artifact.contract import GOLDEN, NEAR, OUTPUTS
from hrm_runtime.artifact.decision import hold
from hrm_runtime.artifact.golden import Golden, deviation, lots_agree, margins, replay, top_two_gap
from hrm_runtime.artifact.segments import Outputs, decisions
from hrm_runtime.market.actions import LEGAL

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def content(artifact: Path) -> bytes:
    return (artifact / GOLDEN).read_bytes()


# the file


def test_what_was_read_is_written_back_byte_for_byte(content: bytes) -> None:
    assert Golden.from_bytes(content).to_bytes() == content


def test_vectors_cover_every_side_instrument_and_an_unknown_one(golden: Golden) -> None:
    assert len(golden) == 32
    assert {account.side for account in golden.accounts()} == {-1, 0, 1}
    assert set(golden.instrument.tolist()) == {0, 1, 2}
    assert [set(outputs) for outputs in golden.passes] == [set(OUTPUTS)] * 2


def test_accounts_are_the_stored_fields(golden: Golden) -> None:
    for account, stored in zip(golden.accounts(), golden.raw_account.tolist(), strict=True):
        assert list(vars(account).values()) == stored


def saved(content: bytes, edit: Callable[[Arrays], object]) -> bytes:
    """`content` with its arrays edited."""
    arrays = dict(np.load(io.BytesIO(content)))
    edit(arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def single_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not vectors",
        lambda content: content[: len(content) // 2],
        lambda content: single_array(),
        lambda content: saved(content, lambda a: a.update(actions=np.array([{}] * 32))),
    ],
    ids=["empty", "text", "half", "one array", "pickled objects"],
)
def test_what_is_no_file_of_arrays_is_damage(content: bytes, damage: Any) -> None:
    with pytest.raises(ArtifactDamaged, match=r"^golden\.npz: expected golden vectors: "):
        Golden.from_bytes(damage(content))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda a: a.pop("actions"),
            r"missing 'actions\.npy'; unknown or repeated none; export it again$",
        ),
        (
            lambda a: a.update(more=np.zeros(32)),
            r"expected each array once .* missing none; unknown or repeated 'more\.npy'; export",
        ),
        (
            lambda a: a.update({"pass3/value": np.zeros(32)}),
            r"missing 'pass2/action_type\.npy', .*; unknown or repeated 'pass3/value\.npy'",
        ),
        (
            lambda a: [a.pop(n) for n in list(a) if n.startswith("pass")],
            r"every output of each pass; missing 'pass0/action_type\.npy', 'pass0/h_residual",
        ),
        (lambda a: a.update(actions=a["actions"][1:]), r"arrays of one length, found .*\(31,\)"),
        (lambda a: a.update(actions=np.array(3)), r"actions: expected i of shape .* shape \(\)"),
        (
            lambda a: a.update(actions=a["actions"].astype(float)),
            r"actions: expected i of shape \(None,\), found float64",
        ),
        (
            lambda a: a.update(raw_account=a["raw_account"][:, :5]),
            r"raw_account: expected f of shape \(None, 6\), found float64 of shape \(32, 5\)",
        ),
        (
            lambda a: a.update({"pass0/value": a["pass0/value"][1:]}),
            r"arrays of one length, found .*\(31,\)",
        ),
    ],
    ids=[
        "missing",
        "unknown",
        "pass left out",
        "no pass",
        "short",
        "no axis",
        "reals",
        "narrow",
        "short output",
    ],
)
def test_arrays_that_are_not_golden_vectors_are_damage(
    content: bytes, edit: Callable[[Arrays], object], message: str
) -> None:
    with pytest.raises(ArtifactDamaged, match=rf"^golden\.npz: .*{message}"):
        Golden.from_bytes(saved(content, edit))


# deviation


@pytest.mark.parametrize(
    ("found", "reference", "expected"),
    [
        (0.5, 0.25, 0.25),  # below 1: absolute
        (-1.0, 1.0, 2.0),
        (110.0, 100.0, 0.1),  # above: relative
        (-110.0, -100.0, 0.1),
        (-1e4, -1e4, 0.0),
    ],
)
def test_deviation_is_absolute_below_one_and_relative_above(
    found: float, reference: float, expected: float
) -> None:
    error = deviation(np.array([found]), np.array([reference]))
    np.testing.assert_allclose(error, [expected], rtol=1e-15)


def test_deviation_subtracts_in_float64() -> None:
    found, reference = np.float32([[1e8, 0.0]]), np.float32([[1e8 + 8, 0.0]])
    np.testing.assert_array_equal(deviation(found, reference), [[8 / (1e8 + 8), 0.0]])


# replay


def changed(golden: Golden, name: str, where: Any, by: float) -> Golden:
    """`golden` with `by` added at one place of one array; `pass1/value` is an output."""
    part, _, output = name.partition("/")
    if not output:
        array = getattr(golden, name).copy()
        array[where] += by
        return replace(golden, **{name: array})
    number = int(part.removeprefix("pass"))
    array = golden.passes[number][output].copy()
    array[where] += by
    return with_output(golden, number, output, array)


def with_output(golden: Golden, number: int, name: str, array: npt.NDArray[Any]) -> Golden:
    passes = list(golden.passes)
    passes[number] = {**passes[number], name: array}
    return replace(golden, passes=tuple(passes))


def first(golden: Golden, count: int) -> Golden:
    """The first `count` windows."""
    arrays = {name: array[:count] for name, array in vars(golden).items() if name != "passes"}
    cut = tuple({name: array[:count] for name, array in p.items()} for p in golden.passes)
    return Golden(passes=cut, **arrays)


def test_the_frozen_vectors_replay(golden: Golden, model: Model) -> None:
    passes = model.run_segments(*(getattr(golden, name) for name in INPUTS))
    for found, expected in zip(passes, golden.passes, strict=True):
        for name, tolerance in model.contract.tolerances.items():
            assert deviation(found[name], expected[name]).max() <= tolerance
    replay(golden, model)


INPUTS = ("features", "account", "instrument", "timeframe")


@pytest.mark.parametrize(
    ("name", "where", "by", "message"),
    [
        ("pass0/action_type", (5, 4), 0.01, r"segment 0, action_type\[5, 4\]: expected .* 0\.001"),
        ("pass0/quantity", 2, 500.0, r"segment 0, quantity\[2\]: expected .* within 0\.002, found"),
        ("pass1/value", 31, -0.01, r"segment 1, value\[31\]: expected .* this machine does not"),
        ("pass1/q_values", (7, 1), 1e-3, r"segment 1, q_values\[7, 1\]: expected .* within 0.0003"),
        ("pass0/z_H_out", (1, 2, 3), 0.01, r"segment 0, z_H_out\[1, 2, 3\]: expected"),
        ("pass1/z_L_out", (0, 0, 0), 0.01, r"segment 1, z_L_out\[0, 0, 0\]: expected"),
        ("pass0/l_residual", (3, 1, 0), 0.01, r"segment 0, l_residual\[3, 1, 0\]: expected"),
        ("pass1/h_residual", (3, 1), np.nan, r"segment 1, h_residual\[3, 1\]: expected nan within"),
        ("actions", 3, 1, r"window 3: expected action \d in segment 2, found \d in 2 \(ok\)"),
        ("segments", 11, -1, r"window 11: expected action \d in segment 1, found \d in 2 \(ok\)"),
        ("quantities", 3, 2.0, r"window 3: expected \d+ lots, found \d+$"),
        ("quantities", 3, -1.5, r"window 3: expected [\d.]+ lots, found \d+$"),
        (
            "raw_account",
            (2, 0),
            1e16,
            r"does not fit the contract: account.capital: expected at mo",
        ),
        ("features", (8, 5, 40), np.nan, r"does not fit .*: features: expected finite numbers"),
        ("instrument", 3, 50, r"does not fit the contract: instrument: expected ids among"),
    ],
)
def test_a_vector_that_does_not_replay_is_named_with_place_and_size(
    golden: Golden, model: Model, name: str, where: Any, by: float, message: str
) -> None:
    with pytest.raises(SelfTestFailed, match=rf"^golden\.npz: {message}"):
        replay(changed(golden, name, where, by), model)


def test_lots_may_step_by_one_where_rounding_falls(golden: Golden, model: Model) -> None:
    stepped = changed(golden, "quantities", golden.actions <= Action.SELL_SHORT, 1.0)
    assert not np.array_equal(stepped.quantities, golden.quantities)
    replay(stepped, model)


@pytest.mark.parametrize(
    ("action", "expected", "found", "agree"),
    [
        (Action.BUY_LONG, 4.0, 5.0, True),
        (Action.SELL_SHORT, 4.0, 6.0, False),
        (Action.SELL_SHORT, 40_000.0, 40_080.0, True),
        (Action.BUY_LONG, 40_000.0, 40_081.0, False),
        (Action.CLOSE_LONG, 4.0, 5.0, False),
        (Action.CLOSE_SHORT, 4.0, 4.0, True),
        (Action.HOLD, 1.0, 2.0, False),
    ],
)
def test_only_an_opening_is_rounded(
    action: Action, expected: float, found: float, agree: bool
) -> None:
    assert lots_agree(action, expected, found, 0.002) is agree


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda g: first(g, 31),
            "expected at least 32 windows, 4 of them with bars; found 31 and 4",
        ),
        (lambda g: replace(g, bars=g.bars[:3]), "expected at least 32 windows, .* found 32 and 3"),
        (
            lambda g: replace(g, passes=g.passes[:1]),
            "expected the passes of 2 segments, found those of 1",
        ),
        (
            lambda g: with_output(g, 0, "value", g.passes[0]["value"][:, None]),
            r"segment 0, value: expected \(32, 1\), found \(32,\)",
        ),
        (
            lambda g: replace(g, passes=({"value": g.passes[0]["value"]}, g.passes[1])),
            "does not fit the contract: 'action_type'",
        ),
        (
            lambda g: replace(g, features=g.features[:, :, :53]),
            r"does not fit the contract: features: expected shape \[B, 6, 54\], found",
        ),
        (
            lambda g: replace(g, bars=g.bars[:, :, 1:]),
            "does not fit the contract: rows: expected at least 6, found 5",
        ),
        (
            lambda g: replace(g, bars=np.roll(g.bars, 1, axis=0)),
            r"window 0(: expected action| from its bars, )",
        ),
    ],
    ids=["few", "few bars", "passes", "shape", "output", "width", "short bars", "other bars"],
)
def test_vectors_that_do_not_fit_fail(
    golden: Golden, model: Model, edit: Callable[[Golden], Golden], message: str
) -> None:
    with pytest.raises(SelfTestFailed, match=rf"^golden\.npz: {message}"):
        replay(edit(golden), model)


FLAT = Account.flat(1e6)


def outputs_of(*rows: tuple[list[float], float, float]) -> Outputs:
    """Rows of (logits, q_halt, q_continue)."""
    return {
        "action_type": np.array([logits for logits, _, _ in rows], dtype=np.float32),
        "quantity": np.ones(len(rows), np.float32),
        "value": np.zeros(len(rows), np.float32),
        "q_values": np.array([q_values for _, *q_values in rows], dtype=np.float32),
    }


def test_the_gap_is_between_the_two_likeliest_actions() -> None:
    (decision,) = decisions([outputs_of(([1.0, 0.0, -1e4, -1e4, 0.5], 0.9, 0.1))], [FLAT], "")
    powers = np.exp([1.0, 0.5, 0.0])
    assert top_two_gap(decision) == pytest.approx((powers[0] - powers[1]) / powers.sum())
    other = replace(decision, probabilities=(0.0, 0.0, 0.4, 0.0, 0.6))
    assert top_two_gap(other) == pytest.approx(0.2)


def test_margins_are_those_of_the_passes_that_decide() -> None:
    clear, tie = [9.0, 0.0, -1e4, -1e4, 0.0], [1.0, 1.0, -1e4, -1e4, -1e4]
    first = outputs_of((clear, 0.6, 0.5), (tie, 0.5, 0.7), (clear, 0.5, 0.75), (tie, 0.25, 0.5))
    second = outputs_of((tie, 0.5, 0.5), (clear, 0.9, 0.8), (clear, 0.5, 0.5), (tie, 0.25, 0.375))
    three = outputs_of((tie, 0.5, 0.5), (tie, 0.5, 0.5), (tie, 0.5, 0.5), (clear, 0.5, 0.5))
    gaps, halting = margins([first, second, three], [FLAT] * 4, 3)
    certain = top_two_gap(decisions([outputs_of((clear, 1, 0))], [FLAT], "")[0])
    assert gaps == pytest.approx([certain, certain, 0.0, certain])  # of the pass each halts at
    second_passes = 0.1 / (4 * 0.8 * 0.2), 0.125 / (4 * 0.375 * 0.625)
    assert halting == pytest.approx([0.1, second_passes[0], 0.0, second_passes[1]])
    _, last = margins([first], [FLAT] * 4, 1)
    assert np.isinf(last).all()  # there is no other segment
    _, one_of_two = margins([first], [FLAT] * 4, 2)
    assert one_of_two == pytest.approx([0.1, 0.2, 0.25, 0.25])


def test_a_halting_head_that_says_the_same_of_both_everywhere_is_no_tie() -> None:
    clear = [9.0, 0.0, -1e4, -1e4, 0.0]
    drawn = outputs_of((clear, 0.0067, 0.0067), (clear, 0.0067, 0.0067))
    _, halting = margins([drawn, drawn], [FLAT] * 2, 2)
    assert np.isinf(halting).all()
    trained = outputs_of((clear, 0.0067, 0.0067), (clear, 0.25, 0.5))
    _, halting = margins([trained, trained], [FLAT] * 2, 2)
    assert halting.tolist() == [0.0, 0.25]


@pytest.mark.parametrize(
    ("q_halt", "q_continue", "margin"),
    [
        (0.0067, 0.0072, 0.0005 / (4 * 0.0072 * 0.9928)),  # hardly trained, and clear
        (0.5, 0.5 - 1e-5, 1e-5),
        (1.0, 1.0 - 6e-8, 6e-8 / 0.01),  # the last bit of a float32
    ],
)
def test_halting_is_as_clear_as_the_sigmoid_lets_rounding_move_it(
    q_halt: float, q_continue: float, margin: float
) -> None:
    clear = [9.0, 0.0, -1e4, -1e4, 0.0]
    _, (found,) = margins([outputs_of((clear, q_halt, q_continue))], [FLAT], 2)
    assert found == pytest.approx(margin, rel=1e-2)


class Elsewhere(Model):
    """Answers `passes`, as another processor might answer the golden windows."""

    def __init__(self, model: Model, golden: Golden, passes: list[Outputs]) -> None:
        super().__init__(model.contract, model.id, model._session)
        self.passes = passes
        self.from_bars = iter(decisions(passes, golden.accounts(), model.id))

    def run_segments(self, *arrays: Any, **_: Any) -> list[Outputs]:
        return self.passes

    def decide_rows(self, *arguments: Any, **names: Any) -> Decision:
        return next(self.from_bars)


def with_row(golden: Golden, name: str, window: int, row: list[float]) -> Golden:
    """`golden` with other outputs of one window's first pass, and what is decided by them."""
    output = golden.passes[0][name].copy()
    output[window] = row
    golden = with_output(golden, 0, name, output)
    made = decisions(golden.passes, golden.accounts(), "")[window]
    for kind, value in (
        ("actions", int(made.action)),
        ("segments", made.segments),
        ("quantities", made.quantity),
    ):
        golden = changed(golden, kind, window, value - getattr(golden, kind)[window])
    return golden


@pytest.mark.parametrize(("gap", "tie"), [(1e-7, True), (0.9e-4, True), (1.2e-4, False)])
@pytest.mark.parametrize("window", [0, 8], ids=["also from bars", "as features"])
@pytest.mark.parametrize("halts", [True, False])
def test_a_stored_tie_of_halting_may_turn_on_another_processor(
    golden: Golden, model: Model, gap: float, tie: bool, halts: bool, window: int
) -> None:
    halting, going_on = [0.5 + gap, 0.5], [0.5, 0.5 + gap]
    stored = with_row(golden, "q_values", window, halting if halts else going_on)
    found = with_row(golden, "q_values", window, going_on if halts else halting)
    assert (stored.segments[window], found.segments[window]) == ((1, 2) if halts else (2, 1))
    elsewhere = Elsewhere(model, golden, list(found.passes))
    if tie:
        replay(stored, elsewhere)
        return
    with pytest.raises(SelfTestFailed, match=rf"window {window}: expected action \d in segment"):
        replay(stored, elsewhere)


def test_a_tie_may_end_the_passes_early(golden: Golden, model: Model) -> None:
    stored, there = golden, golden
    for window in np.flatnonzero(golden.segments == 2).tolist():
        stored = with_row(stored, "q_values", window, [0.5, 0.5 + 1e-6])
        there = with_row(there, "q_values", window, [0.5 + 1e-6, 0.5])
    assert (stored.segments.max(), there.segments.max()) == (2, 1)
    replay(stored, Elsewhere(model, golden, list(there.passes[:1])))


@pytest.mark.parametrize(("gap", "tie"), [(0.9e-4, True), (4e-4, False)])
def test_a_stored_tie_of_actions_may_turn_on_another_processor(
    golden: Golden, model: Model, gap: float, tie: bool
) -> None:
    window = int(np.flatnonzero(golden.segments == 1)[-1])
    first, second = LEGAL[golden.accounts()[window].side][:2]
    logits = np.full((2, 5), -1e4, np.float32)
    logits[[0, 1], [first, second]] = gap
    logits[[0, 1], [second, first]] = 0.0
    stored = with_row(golden, "action_type", window, logits[0].tolist())
    found = with_row(golden, "action_type", window, logits[1].tolist())
    assert (stored.actions[window], found.actions[window]) == (first, second)
    elsewhere = Elsewhere(model, golden, list(found.passes))
    if tie:
        replay(stored, elsewhere)
        return
    with pytest.raises(SelfTestFailed, match=rf"window {window}: expected action {first} in"):
        replay(stored, elsewhere)


def test_a_tie_excuses_no_output_beyond_its_tolerance(golden: Golden, model: Model) -> None:
    stored = with_row(golden, "q_values", 8, [0.5, 0.5 + 1e-6])
    found = with_row(golden, "q_values", 8, [0.502, 0.5])
    with pytest.raises(SelfTestFailed, match=r"segment 0, q_values\[8, 0\]: expected 0\.5 within"):
        replay(stored, Elsewhere(model, golden, list(found.passes)))


def test_integers_round_by_more() -> None:
    assert NEAR == {"fp32": 1e-4, "fp16": 1e-4, "int8": 0.01}


class Echo(Model):
    """Answers the golden passes themselves, but a degraded HOLD where it is given bars."""

    def __init__(self, model: Model, golden: Golden) -> None:
        super().__init__(model.contract, model.id, model._session)
        self.golden = golden

    def run_segments(self, *arrays: Any) -> list[Outputs]:
        return list(self.golden.passes)

    def decide_rows(self, *arguments: Any, **names: Any) -> Decision:
        return hold(Reason.NON_FINITE, self.id, segments=int(self.golden.segments[0]))


def test_a_degraded_hold_is_not_the_hold_that_was_expected(golden: Golden, model: Model) -> None:
    last = len(golden.passes) - 1
    golden = changed(golden, f"pass{last}/action_type", (0, Action.HOLD), 100.0)
    golden = changed(golden, "actions", 0, Action.HOLD - golden.actions[0])
    golden = changed(golden, "quantities", 0, 1.0 - golden.quantities[0])
    with pytest.raises(SelfTestFailed, match=r"window 0: expected action 4 .* \(non_finite\)"):
        replay(golden, Echo(model, golden))


@pytest.mark.parametrize("window", range(4))
def test_bars_that_give_other_numbers_fail(golden: Golden, model: Model, window: int) -> None:
    moved = golden.bars.copy()
    moved[window, 1:] *= 1.5  # what enters the network changes through the account alone
    with pytest.raises(SelfTestFailed, match=rf"window {window}(: expected| from its bars, )"):
        replay(replace(golden, bars=moved), model)
