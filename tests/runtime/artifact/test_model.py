from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from artifact_copy import ArtifactCopy
from random_windows import Windows
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    Account,
    BadAccount,
    BadBars,
    BadFeatures,
    Bars,
    Contract,
    Decision,
    InferenceFailed,
    Model,
    Reason,
    SelfTestFailed,
    TooFewBars,
    UnknownInstrument,
    UnknownTimeframe,
    load,
)
from hrm_runtime.artifact.contract import MODEL, OUTPUTS
from hrm_runtime.artifact.decision import hold
from hrm_runtime.artifact.model import network_inputs
from hrm_runtime.artifact.segments import Outputs, decisions, run_segments, segments_of
from hrm_runtime.artifact.session import Session, Stop
from hrm_runtime.market.actions import ILLEGAL_LOGIT, LEGAL
from hrm_runtime.market.features import rows

BARS = random_bars(260, seed=21)
ON = {"instrument": "Alpha", "timeframe": "5"}
ONE_ROW = slice(0, 1)


def assert_equal(found: Outputs, expected: Outputs) -> None:
    """Bit for bit, every output."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def differing(found: Outputs, expected: Outputs) -> set[str]:
    return {name for name in OUTPUTS if not np.array_equal(found[name], expected[name])}


def columns(bars: Bars) -> dict[str, npt.NDArray[Any]]:
    return {name: getattr(bars, name) for name in ("datetime", "open", "high", "low", "close")}


def inputs(windows: Windows, **changes: Any) -> dict[str, Any]:
    """The first window as the arguments of `Model.run`, some changed."""
    names = ("features", "account", "instrument", "timeframe")
    return {**dict(zip(names, windows[ONE_ROW].arrays, strict=True)), **changes}


# what run computes


def test_outputs_have_the_documented_names_and_shapes(model: Model, windows: Windows) -> None:
    found = model.run(*windows[:7].arrays)
    assert {name: array.shape for name, array in found.items()} == {
        "action_type": (7, 5),
        "quantity": (7,),
        "value": (7,),
        "q_values": (7, 2),
        "z_H_out": (7, 4, 16),
        "z_L_out": (7, 4, 8),
        "l_residual": (7, 2, 2),
        "h_residual": (7, 2),
    }
    assert tuple(found) == OUTPUTS


def test_two_calls_are_bit_equal(model: Model, windows: Windows) -> None:
    assert_equal(model.run(*windows.arrays), model.run(*windows.arrays))


def test_rows_in_a_batch_of_500_shuffled_are_bit_equal(model: Model, windows: Windows) -> None:
    order = np.random.default_rng(1).permutation(500)
    whole, shuffled = model.run(*windows.arrays), model.run(*windows[order].arrays)
    assert_equal(shuffled, {name: array[order] for name, array in whole.items()})


def test_rows_alone_are_bit_equal_to_a_batch_of_500(model: Model, windows: Windows) -> None:
    whole = model.run(*windows.arrays)
    alone = [model.run(*windows[number : number + 1].arrays) for number in range(500)]
    assert_equal({name: np.concatenate([one[name] for one in alone]) for name in OUTPUTS}, whole)


@pytest.mark.parametrize("batch", [2, 3, 5, 8, 17])
def test_rows_in_a_batch_of_any_size_are_bit_equal(
    model: Model, windows: Windows, batch: int
) -> None:
    whole = model.run(*windows.arrays)
    expected = {name: array[-batch:] for name, array in whole.items()}
    assert_equal(model.run(*windows[-batch:].arrays), expected)


def test_more_threads_change_no_bit(artifact: Path, model: Model, windows: Windows) -> None:
    found = load(artifact, threads=2).run(*windows.arrays)
    assert_equal(found, model.run(*windows.arrays))


HEADS = {"action_type", "quantity", "value", "z_H_out", "z_L_out"}


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {"features": moved(w.features, (0, -1))},
        lambda w: {"features": moved(w.features, (0, 0))},
        lambda w: {"account": moved(w.account, (0, 3))},
        lambda w: {"instrument": 2 - w.instrument},
        lambda w: {"timeframe": 2 - w.timeframe},
    ],
    ids=["newest bar", "oldest bar", "account", "instrument", "timeframe"],
)
def test_every_input_alone_moves_every_head(
    model: Model, windows: Windows, change: Callable[[Windows], dict[str, Any]]
) -> None:
    base = inputs(windows, instrument=np.array([2]), timeframe=np.array([2]))
    first = Windows(**base)
    assert differing(model.run(**{**base, **change(first)}), model.run(**base)) >= HEADS


def moved(array: npt.NDArray[np.float32], where: Any) -> npt.NDArray[np.float32]:
    """A copy with everything at `where` a little larger."""
    copy = array.copy()
    copy[where] = copy[where] * 1.01 + 0.001
    return copy


@pytest.mark.parametrize("side", [-1, 0, 1])
def test_illegal_actions_have_exactly_the_illegal_logit(
    model: Model, windows: Windows, side: int
) -> None:
    chosen = windows[windows.account[:, 0] == side]
    logits = model.run(*chosen.arrays)["action_type"]
    legal = np.isin(np.arange(5), LEGAL[side])
    np.testing.assert_array_equal(logits[:, ~legal], np.float32(ILLEGAL_LOGIT))
    assert (np.abs(logits[:, legal]) < 100).all()


def test_heads_stay_within_their_bounds(model: Model, contract: Contract, windows: Windows) -> None:
    found = model.run(*windows.arrays)
    assert (contract.quantity.min <= found["quantity"]).all()
    assert (found["quantity"] <= contract.quantity.max).all()
    assert ((found["q_values"] >= 0) & (found["q_values"] <= 1)).all()
    assert ((found["l_residual"] > 0).all(), (found["h_residual"] > 0).all()) == (True, True)


@pytest.mark.parametrize("kind", [list, np.float64, np.asfortranarray], ids=lambda k: k.__name__)
def test_other_kinds_of_array_are_the_same_numbers(
    model: Model, windows: Windows, kind: Callable[[Any], Any]
) -> None:
    given = windows[:3]
    features, account = kind(given.features), kind(given.account)
    found = model.run(
        features, account, given.instrument.tolist(), given.timeframe.astype(np.uint8)
    )
    assert_equal(found, model.run(*given.arrays))


# what run does with states


def initial_state(artifact: Path, name: str, width: int) -> npt.NDArray[np.float32]:
    """The default of a state, [1, 4, width], read from the graph's bytes: name, then raw data."""
    content = (artifact / MODEL).read_bytes()
    size = 4 * 4 * width
    length = bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])
    marker = bytes([8 << 3 | 2, len(name)]) + name.encode() + bytes([9 << 3 | 2]) + length
    start = content.index(marker) + len(marker)
    return np.frombuffer(content[start : start + size], "<f4").reshape(1, 4, width)


@pytest.fixture(scope="module")
def initial(artifact: Path) -> dict[str, npt.NDArray[np.float32]]:
    return {"z_H": initial_state(artifact, "z_H", 16), "z_L": initial_state(artifact, "z_L", 8)}


def test_states_left_out_are_the_initial_ones(
    model: Model, windows: Windows, initial: dict[str, Any]
) -> None:
    given = windows[:20].arrays
    assert_equal(model.run(*given, **initial), model.run(*given))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_one_state_for_all_rows_equals_one_each(
    model: Model, windows: Windows, initial: dict[str, Any], scale: float
) -> None:
    given = windows[:20].arrays
    one = {name: scale * state for name, state in initial.items()}
    each = {name: np.repeat(state, 20, axis=0) for name, state in one.items()}
    assert_equal(model.run(*given, **each), model.run(*given, **one))


@pytest.mark.parametrize("name", ["z_H", "z_L"])
def test_each_state_moves_the_outputs(
    model: Model, windows: Windows, initial: dict[str, Any], name: str
) -> None:
    given = windows[:3].arrays
    other = {**initial, name: initial[name] + 0.5}
    assert "action_type" in differing(model.run(*given, **other), model.run(*given))


def test_segments_are_runs_from_the_states_returned(model: Model, windows: Windows) -> None:
    given = windows[:50].arrays
    first = model.run(*given)
    second = model.run(*given, z_H=first["z_H_out"], z_L=first["z_L_out"])
    passes = model.run_segments(*given)
    assert len(passes) == model.contract.max_segments == 2
    assert_equal(passes[0], first)
    assert_equal(passes[1], second)


# what run refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: {"features": w.features[:, :, 1:]},
            r"features: .* \[B, 6, 54\], found \[1, 6, 53",
        ),
        (
            lambda w: {"features": w.features[:, 1:]},
            r"features: .* \[B, 6, 54\], found \[1, 5, 54\]",
        ),
        (lambda w: {"features": w.features[0]}, r"features: .* \[B, 6, 54\], found \[6, 54\]"),
        (lambda w: {"features": w.features[:0]}, r"features: .* \[B, 6, 54\], found \[0, 6, 54\]"),
        (lambda w: {"features": 1.0}, r"features: expected shape \[B, 6, 54\], found \[1\]"),
        (
            lambda w: {"account": w.account[:, 1:]},
            r"account: expected shape \[1, 5\], found \[1, 4\]",
        ),
        (lambda w: {"account": w.account[[0, 0]]}, r"account: .* \[1, 5\], found \[2, 5\]"),
        (lambda w: {"features": [["a"]]}, "features: expected numbers: found <U1"),
        (
            lambda w: {"features": [[1.0], [1.0, 2.0]]},
            "features: expected numbers: .*inhomogeneous",
        ),
        (lambda w: {"features": [10**400]}, "features: expected numbers: int too large"),
        (lambda w: {"account": [{}]}, "account: expected numbers: float"),
        (
            lambda w: {"features": spoilt(w.features, np.nan)},
            r"features: expected finite numbers, found nan at \(0, 5, 53\)",
        ),
        (
            lambda w: {"features": spoilt(w.features, np.inf)},
            r"features: expected finite numbers, found inf at \(0, 5, 53\)",
        ),
        (
            lambda w: {"features": spoilt(w.features.astype(float), 1e300)},
            r"features: expected finite numbers, found inf at \(0, 5, 53\)",
        ),
        (
            lambda w: {"account": spoilt(w.account, -np.inf)},
            r"account: expected finite numbers, found -inf at \(0, 4\)",
        ),
        (
            lambda w: {"instrument": [1.0]},
            r"instrument: expected integers of .*\[1\], found float64",
        ),
        (lambda w: {"instrument": [True]}, r"instrument: expected integers .*, found bool \[1\]"),
        (
            lambda w: {"instrument": 1},
            r"instrument: expected integers of shape \[1\], found int64 \[\]",
        ),
        (lambda w: {"timeframe": [1, 2]}, r"timeframe: expected integers .*, found int64 \[2\]"),
        (lambda w: {"instrument": [[1], [1, 2]]}, r"instrument: expected integers: setting"),
        (lambda w: {"instrument": [3]}, r"instrument: expected ids among \[0, 1, 2\], found \[3\]"),
        (lambda w: {"timeframe": [-1]}, r"timeframe: expected ids among \[0, 1, 2\], found \[-1\]"),
        (lambda w: {"z_H": np.zeros((1, 4, 16))}, "z_H, z_L: expected both states or neither"),
        (lambda w: {"z_L": np.zeros((1, 4, 8))}, "z_H, z_L: expected both states or neither"),
        (lambda w: states(z_H=(1, 4, 8)), r"z_H: expected shape \[1, 4, 16\], found \[1, 4, 8\]"),
        (lambda w: states(z_L=(1, 5, 8)), r"z_L: expected shape \[1, 4, 8\], found \[1, 5, 8\]"),
        (lambda w: states(z_H=(2, 4, 16)), r"z_H: expected shape \[1, 4, 16\], found \[2, 4, 16\]"),
        (
            lambda w: {**states(), "z_L": np.full((1, 4, 8), np.nan)},
            r"z_L: expected finite numbers, found nan at \(0, 0, 0\)",
        ),
    ],
)
def test_arrays_the_graph_cannot_use_are_refused(
    model: Model, windows: Windows, change: Callable[[Windows], dict[str, Any]], message: str
) -> None:
    with pytest.raises(BadFeatures, match=rf"^{message}"):
        model.run(**inputs(windows, **change(windows[ONE_ROW])))


def test_states_for_another_batch_are_refused(model: Model, windows: Windows) -> None:
    with pytest.raises(
        BadFeatures, match=r"z_H: expected shape \[1 or 3, 4, 16\], found \[2, 4, 16"
    ):
        model.run(*windows[:3].arrays, **states(z_H=(2, 4, 16)))


def spoilt(array: npt.NDArray[Any], value: float) -> npt.NDArray[Any]:
    """A copy whose last element is `value`."""
    copy = array.copy()
    copy.reshape(-1)[-1] = value
    return copy


def states(**shapes: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    expected = {"z_H": (1, 4, 16), "z_L": (1, 4, 8)}
    return {name: np.zeros(shape) for name, shape in {**expected, **shapes}.items()}


# segments, by a fake graph


class Script:
    """Answers pass n with the given (halt, continue) per row and states full of n.

    It remembers the states it was called with.
    """

    def __init__(self, *passes: list[tuple[float, float]]) -> None:
        self.passes = passes
        self.calls: list[dict[str, Any]] = []

    def __call__(self, *arrays: Any, **states: Any) -> Outputs:
        self.calls.append(states)
        number = len(self.calls)
        q_values = np.array(self.passes[number - 1], dtype=np.float32)
        batch = len(q_values)
        logits = np.full((batch, 5), ILLEGAL_LOGIT, dtype=np.float32)
        logits[:, [0, 1, 4]] = (1.0, 0.0, 0.0)
        return {
            "action_type": logits,
            "quantity": np.full(batch, 10.0 * number, dtype=np.float32),
            "value": np.full(batch, number, dtype=np.float32),
            "q_values": q_values,
            "z_H_out": np.full((batch, 2, 3), number, dtype=np.float32),
            "z_L_out": np.full((batch, 2, 2), number, dtype=np.float32),
        }


ON_AND_ON, HALT, TIE = (0.25, 0.75), (0.75, 0.25), (0.5, 0.5)


def segments(script: Script, at_most: int) -> list[Outputs]:
    return run_segments(script, None, None, None, None, at_most)


@pytest.mark.parametrize(
    ("passes", "at_most", "counts"),
    [
        ([[HALT]], 1, [1]),
        ([[ON_AND_ON]], 1, [1]),
        ([[HALT]], 4, [1]),
        ([[ON_AND_ON], [HALT]], 4, [2]),
        ([[TIE], [TIE], [TIE]], 3, [3]),  # equality goes on
        ([[HALT, ON_AND_ON], [ON_AND_ON, HALT]], 4, [1, 2]),
        ([[ON_AND_ON, HALT], [HALT, HALT]], 4, [2, 1]),
        ([[ON_AND_ON, HALT, TIE], [ON_AND_ON, TIE, HALT], [ON_AND_ON] * 3], 3, [3, 1, 2]),
    ],
)
def test_a_row_halts_at_the_first_pass_that_prefers_halting(
    passes: list[list[tuple[float, float]]], at_most: int, counts: list[int]
) -> None:
    script = Script(*passes)
    ran = segments(script, at_most)
    assert len(ran) == len(passes)
    assert segments_of(ran).tolist() == counts


def test_states_are_carried_from_pass_to_pass() -> None:
    script = Script([ON_AND_ON], [ON_AND_ON], [HALT])
    segments(script, 5)
    assert script.calls[0] == {}
    for number, call in enumerate(script.calls[1:], start=1):
        np.testing.assert_array_equal(call["z_H"], np.full((1, 2, 3), number, np.float32))
        np.testing.assert_array_equal(call["z_L"], np.full((1, 2, 2), number, np.float32))


def test_a_decision_comes_from_the_pass_at_which_its_row_halted() -> None:
    passes = segments(Script([HALT, TIE, TIE], [HALT, HALT, TIE], [TIE, HALT, TIE]), 3)
    made = decisions(passes, [ACCOUNTS["flat"]] * 3, "abc", latency_ms=2.0)
    assert [decision.segments for decision in made] == [1, 2, 3]
    assert [decision.value for decision in made] == [1.0, 2.0, 3.0]
    assert [decision.quantity for decision in made] == [10.0, 20.0, 30.0]
    assert [decision.q_values for decision in made] == [HALT, HALT, TIE]
    assert {(decision.model_id, decision.latency_ms) for decision in made} == {("abc", 2.0)}


def test_there_is_an_account_for_every_row() -> None:
    with pytest.raises(ValueError, match="longer"):
        decisions(segments(Script([HALT, HALT]), 1), [ACCOUNTS["flat"]], "abc")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["value", "z_H_out", "z_L_out", "q_values"])
def test_a_row_that_breaks_halts_there_and_leaves_the_others_alone(name: str, value: float) -> None:
    script = Script([TIE, TIE], [TIE, TIE], [TIE, HALT])

    def breaking(*arrays: Any, **states: Any) -> Outputs:
        outputs = script(*arrays, **states)
        if len(script.calls) == 2:
            outputs[name].reshape(2, -1)[0, 0] = value
        return outputs

    passes = run_segments(breaking, None, None, None, None, 3)
    made = decisions(passes, [ACCOUNTS["flat"]] * 2, "abc")
    assert made[0] == hold(Reason.NON_FINITE, "abc", segments=2)
    assert (made[1].reason, made[1].segments, made[1].value) == (Reason.OK, 3, 3.0)
    for state in ("z_H", "z_L"):
        np.testing.assert_array_equal(script.calls[2][state][1], np.float32(2.0))
        assert np.isfinite(script.calls[2][state]).all()


# decide


def bits(decision: Decision) -> tuple[Any, ...]:
    """What equality compares, with every float spelt out to its last bit."""
    floats = (decision.quantity, decision.value, *decision.probabilities, *decision.q_values)
    return (decision, *(number.hex() for number in floats))


@pytest.mark.parametrize("side", ACCOUNTS)
@pytest.mark.parametrize("instrument", ["Alpha", "Beta"])
@pytest.mark.parametrize("timeframe", ["5", "15"])
def test_decide_equals_decide_rows_on_its_rows(
    model: Model, side: str, instrument: str, timeframe: str
) -> None:
    names = {"instrument": instrument, "timeframe": timeframe}
    for end in range(205, len(BARS) + 1, 11):
        series = rows(BARS[:end], model.contract.features.history_bars)
        by_rows = model.decide_rows(series, ACCOUNTS[side], **names)
        assert bits(model.decide(BARS[:end], ACCOUNTS[side], **names)) == bits(by_rows)
        assert by_rows.reason is Reason.OK


def test_a_decision_is_that_of_its_passes(model: Model, contract: Contract) -> None:
    account = ACCOUNTS["flat"]
    window = rows(BARS[-205:], 200)
    given = network_inputs(contract, window, account, contract.instruments["Beta"], 1)
    np.testing.assert_array_equal(given[0], [[row.values for row in window]])
    assert (given[2].tolist(), given[3].tolist()) == ([2], [1])
    expected = decisions(model.run_segments(*given), [account], model.id)[0]
    assert bits(model.decide(BARS, account, instrument="Beta", timeframe="15")) == bits(expected)


def test_a_mapping_of_columns_decides_as_its_bars(model: Model) -> None:
    given = {**columns(BARS), "index": range(len(BARS))}
    account = ACCOUNTS["long"]
    assert bits(model.decide(given, account, **ON)) == bits(model.decide(BARS, account, **ON))


def test_more_history_than_needed_changes_nothing(model: Model) -> None:
    needed = model.contract.bars_needed
    account = ACCOUNTS["short"]
    expected = bits(model.decide(BARS[-needed:], account, **ON))
    assert bits(model.decide(BARS, account, **ON)) == expected
    assert bits(model.decide(BARS[-needed - 1 :], account, **ON)) == expected


def test_more_rows_than_needed_change_nothing(model: Model) -> None:
    series = rows(BARS, 200)
    account = ACCOUNTS["flat"]
    assert bits(model.decide_rows(series, account, **ON)) == bits(
        model.decide_rows(tuple(series[-6:]), account, **ON)
    )


def newest_changed() -> Bars:
    changed = columns(BARS)
    changed["close"] = changed["close"].copy()
    changed["close"][-1] = changed["low"][-1]
    assert changed["close"][-1] != BARS.close[-1]
    return Bars(**changed)


@pytest.mark.parametrize(
    "change",
    [
        {"bars": newest_changed()},
        {"account": Account.flat(50_000.0)},
        {"account": ACCOUNTS["long"]},
        {"instrument": "Beta"},
        {"timeframe": "15"},
    ],
    ids=["newest bar", "capital", "side", "instrument", "timeframe"],
)
def test_every_part_of_the_input_alone_changes_the_decision(
    model: Model, change: dict[str, Any]
) -> None:
    base = {"bars": BARS, "account": ACCOUNTS["flat"], **ON}
    one, other = model.decide(**base), model.decide(**{**base, **change})
    assert one.probabilities != other.probabilities
    assert one.value != other.value


def test_the_model_numbers_nothing_and_signs_everything(model: Model) -> None:
    made = model.decide(BARS, ACCOUNTS["flat"], **ON)
    assert (made.sequence, made.model_id) == (0, model.id)


@pytest.mark.parametrize("side", ACCOUNTS)
def test_an_illegal_action_is_never_chosen(model: Model, windows: Windows, side: str) -> None:
    account = ACCOUNTS[side]
    chosen = windows[windows.account[:, 0] == account.side]
    made = decisions(model.run_segments(*chosen.arrays), [account] * len(chosen.features), "abc")
    assert len(made) > 150
    legal = LEGAL[account.side]
    assert {decision.action for decision in made} <= set(legal)
    for decision in made:
        assert [p for a, p in enumerate(decision.probabilities) if a not in legal] == [0.0] * (
            5 - len(legal)
        )
        assert sum(decision.probabilities) == pytest.approx(1.0, abs=1e-15)


def test_concurrent_decisions_equal_sequential_ones(model: Model) -> None:
    jobs = [
        (BARS[: 205 + number], ACCOUNTS[side], instrument)
        for number in range(0, 50, 5)
        for side in ACCOUNTS
        for instrument in ("Alpha", "Beta")
    ]

    def decide(job: tuple[Bars, Account, str]) -> tuple[Any, ...]:
        return bits(model.decide(job[0], job[1], instrument=job[2], timeframe="5"))

    with ThreadPoolExecutor(max_workers=2) as pool:
        assert list(pool.map(decide, jobs)) == list(map(decide, jobs))


# what decide refuses


def test_too_few_bars_are_refused(model: Model) -> None:
    with pytest.raises(TooFewBars, match="at least 205 for one decision, found 204"):
        model.decide(BARS[:204], ACCOUNTS["flat"], **ON)


def test_a_mapping_without_a_column_is_refused(model: Model) -> None:
    given = {name: column for name, column in columns(BARS).items() if name != "low"}
    with pytest.raises(BadBars, match="missing low"):
        model.decide(given, ACCOUNTS["flat"], **ON)


def test_too_few_rows_are_refused(model: Model) -> None:
    with pytest.raises(BadFeatures, match="rows: expected at least 6, found 5"):
        model.decide_rows(rows(BARS, 200)[:5], ACCOUNTS["flat"], **ON)


@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 5, 4], [5, 4, 3, 2, 1, 0]], ids=str
)
def test_rows_out_of_order_are_refused(model: Model, order: list[int]) -> None:
    series = rows(BARS, 200)
    with pytest.raises(BadFeatures, match="stamps that increase, oldest bar first"):
        model.decide_rows([series[number] for number in order], ACCOUNTS["flat"], **ON)


def test_a_row_that_is_not_finite_is_refused(model: Model) -> None:
    *series, newest = rows(BARS, 200)
    broken = replace(newest, values=newest.values * np.float32(np.nan))
    with pytest.raises(
        BadFeatures, match=r"features: expected finite numbers, found nan at \(0, 5"
    ):
        model.decide_rows([*series, broken], ACCOUNTS["flat"], **ON)


def test_rows_made_from_another_history_are_refused(model: Model) -> None:
    with pytest.raises(BadFeatures, match=r"history_bars=200\), found rows made from \[205\] bars"):
        model.decide_rows(rows(BARS, 205), ACCOUNTS["flat"], **ON)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: m.decide(BARS, None, **ON),
            BadAccount,
            "account: expected an Account or a mapping, found NoneType",
        ),
        (
            lambda m: m.decide_rows(rows(BARS, 200), {"capital": 1e6}, **ON),
            BadAccount,
            "account: expected the values capital, .*; found capital",
        ),
        (
            lambda m: m.inputs(rows(BARS, 200)[-6:], 1e6, **ON),
            BadAccount,
            "account: expected an Account or a mapping, found float",
        ),
        (lambda m: m.decide(None, ACCOUNTS["flat"], **ON), BadBars, "a mapping .*, found NoneType"),
        (
            lambda m: m.decide(BARS, ACCOUNTS["flat"], instrument=1, timeframe="5"),
            UnknownInstrument,
            "instrument: expected a name, found 1",
        ),
        (
            lambda m: m.decide(BARS, ACCOUNTS["flat"], instrument="Alpha", timeframe=5),
            UnknownTimeframe,
            "timeframe: expected a name, found 5",
        ),
    ],
)
def test_arguments_of_another_type_are_refused(
    model: Model, call: Callable[[Model], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(model)


@pytest.mark.parametrize("account", ACCOUNTS.values(), ids=list(ACCOUNTS))
def test_an_account_may_be_a_mapping_of_its_values(model: Model, account: Account) -> None:
    window, expected = rows(BARS, 200), model.decide(BARS, account, **ON)
    assert model.decide(BARS, vars(account), **ON) == expected
    assert model.decide_rows(window, vars(account), **ON) == expected
    for given, read in zip(
        model.inputs(window[-6:], vars(account), **ON),
        model.inputs(window[-6:], account, **ON),
        strict=True,
    ):
        np.testing.assert_array_equal(given, read, strict=True)


def test_an_unknown_instrument_is_refused_with_the_known_ones(model: Model) -> None:
    with pytest.raises(UnknownInstrument, match="expected one of Alpha, Beta; found 'Gamma'"):
        model.decide(BARS, ACCOUNTS["flat"], instrument="Gamma", timeframe="5")


def test_an_unknown_timeframe_is_refused_with_the_known_ones(model: Model) -> None:
    with pytest.raises(UnknownTimeframe, match="expected one of 15, 5; found '60'"):
        model.decide(BARS, ACCOUNTS["flat"], instrument="Alpha", timeframe="60")


def test_unknown_names_decide_with_id_0_where_allowed(copy_artifact: ArtifactCopy) -> None:
    copy_artifact.reseal(allow_unknown_instrument=True, allow_unknown_timeframe=True)
    model = load(copy_artifact.path)
    contract, account = model.contract, ACCOUNTS["flat"]
    given = network_inputs(
        contract, rows(BARS[-205:], 200), account, contract.instruments["unknown"], 0
    )
    assert (given[2].tolist(), given[3].tolist()) == ([0], [0])
    expected = decisions(model.run_segments(*given), [account], model.id)[0]
    found = model.decide(BARS, account, instrument="Gamma", timeframe="60")
    assert bits(found) == bits(expected)
    assert found.probabilities != model.decide(BARS, account, **ON).probabilities


# outputs that cannot be trusted


class Spoiling:
    """A session whose outputs hold one value that is not a number."""

    def __init__(self, artifact: Path, name: str, value: float) -> None:
        self.session = Session((artifact / MODEL).read_bytes())
        self.name, self.value = name, value

    def run(self, feeds: dict[str, Any], stop: Stop | None = None) -> Outputs:
        outputs = self.session.run(feeds, stop)
        outputs[self.name].reshape(-1)[-1] = self.value
        return outputs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_is_not_finite_is_hold_with_its_reason(
    artifact: Path, model: Model, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(model, "_session", Spoiling(artifact, name, value))
    found = model.decide(BARS, ACCOUNTS["flat"], **ON)
    assert found == hold(Reason.NON_FINITE, model.id, segments=1)
    assert found.degraded


def test_a_failing_run_is_raised(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = replace(
        model.contract,
        instruments={
            **model.contract.instruments,
            "Beyond": replace(model.contract.instruments["Alpha"], id=10_000),
        },
    )
    monkeypatch.setattr(model, "contract", contract)
    with pytest.raises(InferenceFailed, match="onnxruntime failed while running the graph"):
        model.decide(BARS, ACCOUNTS["flat"], instrument="Beyond", timeframe="5")


def test_a_pass_that_was_stopped_is_raised(model: Model, windows: Windows) -> None:
    stop = Stop()
    given = windows[:50].arrays
    assert_equal(model.run(*given, stop=stop), model.run(*given))
    whole = model.run_segments(*given, stop=stop)
    assert len(whole) == 2
    assert_equal(whole[1], model.run_segments(*given)[1])
    stop.set()
    with pytest.raises(InferenceFailed, match="onnxruntime failed while running the graph"):
        model.run(*given, stop=stop)
    with pytest.raises(InferenceFailed, match="onnxruntime failed while running the graph"):
        model.run_segments(*given, stop=stop)


# the self-test


class Changing:
    """A session whose outputs are changed by `change`, while there is one."""

    def __init__(self, model: Model) -> None:
        self.session = model._session
        self.change: Callable[[Outputs], object] | None = None
        self.asked: list[dict[str, Any]] = []

    def run(self, feeds: dict[str, Any], stop: Stop | None = None) -> Outputs:
        self.asked.append(feeds)
        outputs = self.session.run(feeds, stop)
        if self.change is not None:
            self.change(outputs)
        return outputs


@pytest.fixture
def changing(model: Model) -> Changing:
    return Changing(model)


@pytest.fixture
def untested(model: Model, changing: Changing) -> Model:
    """The frozen model as it was before its first self-test, on a session that may change."""
    return Model(model.contract, model.id, changing)  # type: ignore[arg-type]


def last_of(name: str, change: Callable[[np.float32], Any]) -> Callable[[Outputs], None]:
    """Changes the last element of the output `name`."""

    def apply(outputs: Outputs) -> None:
        flat = outputs[name].reshape(-1)
        flat[-1] = change(flat[-1])

    return apply


def one_bit_up(value: np.float32) -> Any:
    return np.nextafter(value, np.float32(np.inf))


def test_a_self_test_runs_a_window_of_zeros_as_often_as_one_likes(
    untested: Model, changing: Changing
) -> None:
    for _ in range(3):
        untested.self_test()
    assert len(changing.asked) == 3
    for feeds in changing.asked:
        assert_equal(
            feeds,
            {
                "features": np.zeros((1, 6, 54), np.float32),
                "account": np.zeros((1, 5), np.float32),
                "instrument": np.zeros(1, np.int64),
                "timeframe": np.zeros(1, np.int64),
            },
        )


def test_decisions_between_self_tests_change_nothing(untested: Model) -> None:
    untested.self_test()
    before = bits(untested.decide(BARS, ACCOUNTS["flat"], **ON))
    untested.self_test()
    assert bits(untested.decide(BARS, ACCOUNTS["flat"], **ON)) == before


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_differs_in_a_bit_fails_the_self_test(
    untested: Model, changing: Changing, name: str
) -> None:
    untested.self_test()
    changing.change = last_of(name, one_bit_up)
    with pytest.raises(
        SelfTestFailed,
        match=rf"^self-test: expected the outputs of the first one, found other \['{name}'\]; "
        "this machine cannot be relied on$",
    ):
        untested.self_test()
    changing.change = None
    untested.self_test()


def test_a_loaded_model_is_held_to_what_it_answered_when_loaded(artifact: Path) -> None:
    loaded = load(artifact)
    changing = Changing(loaded)
    changing.change = last_of("value", one_bit_up)
    loaded._session = changing  # type: ignore[assignment]
    with pytest.raises(SelfTestFailed, match=r"found other \['value'\]"):
        loaded.self_test()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_an_output_that_is_not_finite_fails_the_self_test(
    untested: Model, changing: Changing, name: str, value: float, first: bool
) -> None:
    if not first:
        untested.self_test()
    changing.change = last_of(name, lambda _: value)
    for _ in range(2):  # and again: what is broken is no example
        with pytest.raises(
            SelfTestFailed, match=r"^self-test: expected finite outputs of a window of zeros$"
        ):
            untested.self_test()


def test_a_self_test_that_cannot_run_is_an_inference_failure(
    untested: Model, changing: Changing
) -> None:
    def fail(outputs: Outputs) -> None:
        raise InferenceFailed("no memory")

    changing.change = fail
    with pytest.raises(InferenceFailed, match=r"^no memory$"):
        untested.self_test()


# where it came from


def test_a_model_knows_its_folder_whatever_the_current_one_is(
    artifact: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.folder == artifact
    monkeypatch.chdir(artifact.parent)
    loaded = load(artifact.name)
    monkeypatch.chdir("/")
    assert loaded.folder == artifact


def test_a_model_that_was_made_otherwise_has_no_folder(untested: Model) -> None:
    assert untested.folder is None
