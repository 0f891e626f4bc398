"""What `Model.run` and `Model.run_segments` compute, and what they refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from outputs import assert_equal
from random_windows import Windows

from hrm_runtime import BadFeatures, Contract, InferenceFailed, Model, load
from hrm_runtime.artifact.contract import MODEL, OUTPUTS
from hrm_runtime.artifact.segments import Outputs
from hrm_runtime.artifact.session import Stop
from hrm_runtime.market.actions import ILLEGAL_LOGIT, LEGAL

ONE_ROW = slice(0, 1)


def differing(found: Outputs, expected: Outputs) -> set[str]:
    return {name for name in OUTPUTS if not np.array_equal(found[name], expected[name])}


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
