"""A pass that finds, changes or leaves something else than it says stops the export by name."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch
from remembered import Remembered, read, write
from torch import Tensor

import hrm_train.network.layers
from hrm_export.errors import PassFailed
from hrm_export.graph import build, passes
from hrm_export.graph import steps as conversion
from hrm_export.graph.build import CLEANING, FUSION, Change, Pass, quantisation, run
from hrm_export.graph.compose import Composed, Schedule, compose
from hrm_export.graph.steps import Steps
from hrm_train.learning.checkpoint import Checkpoint

Array = npt.NDArray[Any]


def scales_of(source: Checkpoint) -> dict[str, float]:
    return dict.fromkeys(source.model.products, 0.02)


@pytest.fixture(scope="module")
def ladder(even: Checkpoint) -> list[Pass]:
    """Every pass in its order, for a network of one block in H, two in L, and no joins."""
    return [*CLEANING, *FUSION, quantisation(scales_of(even))]


DUE = {
    "fold transposes of weights": (8, 4),
    "fold constants and drop what nothing reads": (0, 0),  # any number from 1
    "settle the scale of norms": (4, 2),
    "split products instead of their results": (4, 2),
    "fuse rotation and attention": (2, 1),
    "fuse SiLU": (2, 1),
    "fuse the residual": (1, 1),
    "quantise products": (14, 7),
}
"""Changes to the low and to the high step."""

ALL = [*CLEANING, *FUSION, quantisation({})]


@pytest.fixture(scope="module")
def stands(
    even: Checkpoint,
    remembered: Remembered,
    ladder: list[Pass],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder for each pass, of the steps as it gets them."""
    folder = tmp_path_factory.mktemp("stands")
    steps = remembered.convert(even.model)
    for each in ladder:
        write(steps, folder / each.name)
        run(each, steps)
    return folder


@pytest.fixture
def before(request: pytest.FixtureRequest, stands: Path, ladder: list[Pass]) -> tuple[Pass, Steps]:
    """A pass and the steps as it gets them."""
    (each,) = (one for one in ladder if one.name == request.param)
    return each, read(stands / each.name)


every = pytest.mark.parametrize("before", DUE, indirect=True)


@every
def test_what_a_pass_does_is_counted_over_both_steps(before: tuple[Pass, Steps]) -> None:
    each, steps = before
    low, high = DUE[each.name]
    change = run(each, steps)
    if low:
        assert change == Change(each.name, low + high)
    else:
        assert change.count > 20


@pytest.mark.parametrize(
    ("before", "operator"),
    [(each.name, operator) for each in ALL for operator in sorted(each.needs)],
    indirect=["before"],
)
@pytest.mark.parametrize("step", ["low", "high"])
def test_a_pass_says_what_it_needs_and_does_not_find(
    before: tuple[Pass, Steps], operator: str, step: str
) -> None:
    each, steps = before
    for node in getattr(steps, step).graph.graph:
        if node.op_type == operator:
            node.op_type = "Mystery"
    expected = f"pass '{each.name}' on the {step} step: expected to find {operator}, found none"
    with pytest.raises(PassFailed, match=f"^{re.escape(expected)}$"):
        run(each, steps)


@pytest.mark.parametrize("before", [name for name, (due, _) in DUE.items() if due], indirect=True)
@pytest.mark.parametrize("off", [-1, 1])
def test_a_pass_that_changes_more_or_less_than_is_due_stops(
    before: tuple[Pass, Steps], off: int
) -> None:
    each, steps = before
    due, _ = DUE[each.name]

    def apply(model: ir.Model) -> int:
        return each.apply(model) + off

    expected = (
        f"pass '{each.name}' on the low step: expected {due} changes, made {due + off}; torch "
        "writes the graph in another way than this pass knows: install the versions of"
    )
    with pytest.raises(PassFailed, match=f"^{re.escape(expected)}"):
        run(replace(each, apply=apply), steps)


@every
def test_a_pass_that_does_nothing_stops(before: tuple[Pass, Steps]) -> None:
    each, steps = before
    due, _ = DUE[each.name]
    expected = f"pass '{each.name}' on the low step: expected {due or 'some'} changes, made 0"
    with pytest.raises(PassFailed, match=f"^{re.escape(expected)}"):
        run(replace(each, apply=lambda _: 0), steps)


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ("settle the scale of norms", "ConstantOfShape, Shape"),
        ("fuse rotation and attention", "Concat, Neg, Reshape, Split, Transpose"),
        ("fuse SiLU", "Sigmoid"),
        ("fuse the residual", "Pow, ReduceMean, Sqrt, Unsqueeze"),
        ("quantise products", "MatMul"),
    ],
    indirect=["before"],
)
def test_a_pass_that_leaves_what_it_should_not_stops(before: tuple[Pass, Steps], left: str) -> None:
    each, steps = before
    due, _ = DUE[each.name]
    expected = f"pass '{each.name}' on the low step: expected none of {left} after it, found some"
    with pytest.raises(PassFailed, match=f"^{re.escape(expected)}$"):
        run(replace(each, apply=lambda _: due), steps)


def test_what_cleaning_must_not_leave_is_named(even: Checkpoint, remembered: Remembered) -> None:
    steps, (_, cleaning) = remembered.convert(even.model), CLEANING
    run(cleaning, steps)
    low = steps.low.graph
    copied = ir.node("Identity", [low.graph.inputs[0]])
    low.graph.insert_before(low.graph[0], copied)
    with pytest.raises(PassFailed, match="on the low step: expected none of Identity after it"):
        run(replace(cleaning, apply=lambda _: 1), steps)


# what torch might write one day


@pytest.fixture
def converted_low(
    checkpoint: Checkpoint, remembered: Remembered, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Make the graph, with a low step that torch converts here and now."""
    rest = remembered.convert(checkpoint.model)
    others = {
        conversion._Encode: rest.encode,
        conversion._High: rest.high.graph,
        conversion._Decode: rest.decode,
    }
    really = conversion._convert

    def convert(step: conversion._Step, example: dict[str, Tensor]) -> ir.Model:
        return others.get(type(step)) or really(step, example)

    def make() -> None:
        monkeypatch.setattr(conversion, "_convert", convert)
        build.build(checkpoint.model, "fp32")

    return make


def test_another_silu_does_not_pass_unfused(
    converted_low: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hrm_train.network.layers.F, "silu", lambda x: 0.5 * x * (1 + torch.tanh(0.5 * x))
    )
    with pytest.raises(
        PassFailed, match=r"'fuse SiLU' on the low step: expected to find Sigmoid, found none"
    ):
        converted_low()


def test_a_norm_by_hand_does_not_pass_unfused(
    converted_low: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rms_norm(x_BSD: Tensor) -> Tensor:
        return x_BSD * torch.rsqrt(x_BSD.square().mean(dim=-1, keepdim=True) + 1e-5)

    monkeypatch.setattr(hrm_train.network.layers, "rms_norm", rms_norm)
    with pytest.raises(
        PassFailed,
        match=r"'settle the scale of norms' on the low step: expected to find RMSNormalization",
    ):
        converted_low()


def nodes(model: ir.Model, op_type: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == op_type]


@pytest.mark.parametrize("before", ["fuse SiLU"], indirect=True)
def test_one_silu_that_does_not_fuse_among_two_stops(before: tuple[Pass, Steps]) -> None:
    each, steps = before
    nodes(steps.low.graph, "Sigmoid")[1].op_type = "HardSigmoid"
    with pytest.raises(PassFailed, match="on the low step: expected 2 changes, made 1;"):
        run(each, steps)


def constant(model: ir.Model, name: str) -> ir.Value:
    return model.graph.initializers[name]


def put(value: ir.Value, array: Array) -> None:
    value.const_value = ir.tensor(array, name=value.name)


@pytest.mark.parametrize("before", ["fuse rotation and attention"], indirect=True)
@pytest.mark.parametrize("where", [(2, 0), (3, 7)], ids=["first half", "second half"])
@pytest.mark.parametrize("table", [0, 1], ids=["cos", "sin"])
def test_a_rotation_whose_halves_differ_does_not_fuse(
    before: tuple[Pass, Steps], table: int, where: tuple[int, int]
) -> None:
    each, steps = before
    high = steps.high.graph
    tables = [
        value
        for node in nodes(high, "Mul")
        for value in node.inputs
        if value is not None and value.const_value is not None
    ]
    assert len(tables) == 4  # for queries and for keys
    assert tables[table].const_value is not None
    changed = tables[table].const_value.numpy().copy()
    changed[where] += 0.25
    for value in tables:
        if value is tables[table]:
            put(value, changed)
    with pytest.raises(PassFailed, match="attention' on the high step: expected 1 changes, made 0"):
        run(each, steps)


@pytest.mark.parametrize("before", ["fuse rotation and attention"], indirect=True)
def test_a_rotation_by_what_is_not_constant_does_not_fuse(before: tuple[Pass, Steps]) -> None:
    each, steps = before
    low = steps.low.graph
    for node in nodes(low, "Mul"):
        for index, value in enumerate(node.inputs):
            if value is not None and value.const_value is not None:
                copied = ir.node("Identity", [value])
                low.graph.insert_before(node, copied)
                node.replace_input_with(index, copied.outputs[0])
    with pytest.raises(PassFailed, match="attention' on the low step: expected 2 changes, made 0"):
        run(each, steps)


@pytest.mark.parametrize("before", ["fuse the residual"], indirect=True)
@pytest.mark.parametrize(
    ("op_type", "array"),
    [("Pow", np.array(3.0, np.float32)), ("ReduceMean", np.array([1, 0]))],
    ids=["another power", "another mean"],
)
def test_a_residual_of_another_kind_does_not_fuse(
    before: tuple[Pass, Steps], op_type: str, array: Array
) -> None:
    each, steps = before
    (node,) = nodes(steps.low.graph, op_type)
    value = node.inputs[1]
    assert value is not None
    put(value, array)
    with pytest.raises(PassFailed, match="residual' on the low step: expected 1 changes, made 0"):
        run(each, steps)


@pytest.mark.parametrize("before", ["settle the scale of norms"], indirect=True)
def test_a_norm_with_a_scale_of_its_own_is_left_alone(before: tuple[Pass, Steps]) -> None:
    each, steps = before
    low = steps.low.graph
    norm = nodes(low, "RMSNormalization")[0]
    scale = ir.Value(name="learned", const_value=ir.tensor(np.full(16, 2.0, np.float32)))
    low.graph.register_initializer(scale)
    norm.replace_input_with(1, scale)
    with pytest.raises(PassFailed, match="norms' on the low step: expected 4 changes, made 3;"):
        run(each, steps)


@pytest.mark.parametrize("before", ["split products instead of their results"], indirect=True)
def test_a_split_of_anything_but_a_product_is_left_alone(before: tuple[Pass, Steps]) -> None:
    each, steps = before
    low = steps.low.graph
    found = [node.inputs[0] for node in nodes(low, "Split")]
    products = [value.producer() for value in found if value is not None]
    multiplied = [product for product in products if product and product.op_type == "MatMul"]
    assert len(multiplied) == 4  # the others, of a rotation, split heads
    multiplied[0].op_type = "MatMulNBits"
    with pytest.raises(PassFailed, match="results' on the low step: expected 4 changes, made 3;"):
        run(each, steps)


@pytest.mark.parametrize("before", ["fold transposes of weights"], indirect=True)
def test_a_weight_that_somebody_else_reads_is_not_turned(before: tuple[Pass, Steps]) -> None:
    each, steps = before
    low = steps.low.graph
    weight = constant(low, "l_module.blocks.0.mlp.down.weight")
    assert weight.const_value is not None
    was = weight.const_value.numpy()
    low.graph.append(ir.node("Identity", [weight]))
    with pytest.raises(PassFailed, match="weights' on the low step: expected 8 changes, made 7;"):
        run(each, steps)
    np.testing.assert_array_equal(weight.const_value.numpy(), was)


# quantisers and halves


@pytest.fixture
def fused(stands: Path) -> Steps:
    return read(stands / "quantise products")


def test_quantisers_with_scales_of_other_names_stop(fused: Steps, checkpoint: Checkpoint) -> None:
    scales = {f"model.{name}": 0.02 for name in checkpoint.model.products}
    with pytest.raises(
        PassFailed, match="'quantise products' on the low step: expected 14 changes, made 0;"
    ):
        run(quantisation(scales), fused)


def test_a_product_without_a_scale_stops(fused: Steps, even: Checkpoint) -> None:
    scales = scales_of(even)
    del scales["h_module.blocks.0.mlp.down"]
    with pytest.raises(PassFailed, match="on the high step: expected 7 changes, made 6;"):
        run(quantisation(scales), fused)


def test_a_product_of_two_inputs_is_no_product_with_a_weight(
    fused: Steps, even: Checkpoint
) -> None:
    low = fused.low.graph
    (state, *_) = low.graph.inputs
    low.graph.append(ir.node("MatMul", [state, state]))
    with pytest.raises(PassFailed, match="on the low step: expected none of MatMul after it"):
        run(quantisation(scales_of(even)), fused)


@pytest.fixture
def whole(fused: Steps, even: Checkpoint) -> ir.Model:
    z_H, z_L = (z.contiguous().numpy() for z in even.model.initialize_states())
    return compose(fused, Schedule(1, 1, True, z_H, z_L)).model


@pytest.mark.parametrize("weight", [1e5, -7e4, np.inf])
def test_a_weight_too_large_for_a_half_stops(whole: ir.Model, weight: float) -> None:
    name = "h_module.blocks.0.attention.out.weight"
    value = constant(whole, name)
    assert value.const_value is not None
    changed = value.const_value.numpy().copy()
    changed[3, 5] = weight
    put(value, changed)
    expected = f"{name}: expected weights float16 can hold, found {abs(np.float32(weight))}"
    with pytest.raises(PassFailed, match=f"^{re.escape(expected)}$"):
        passes.store_half(whole)


def test_the_largest_half_is_stored(whole: ir.Model) -> None:
    value = constant(whole, "value_head.value.weight")
    put(value, np.full((1, 16), 65504.0, np.float32))
    assert passes.store_half(whole) == 8 + 3 * 7
    half = constant(whole, "value_head.value.weight.half").const_value
    assert half is not None
    np.testing.assert_array_equal(half.numpy(), np.full((1, 16), 65504, np.float16), strict=True)
    assert passes.matrices(whole) == []


@pytest.mark.usefixtures("quick_export")
def test_halves_that_leave_a_matrix_stop(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "store_half", lambda model: 1)
    with pytest.raises(
        PassFailed,
        match=r"^storing halves: expected no float32 matrix, found h_module\.blocks\.0\.attention",
    ):
        build.build(checkpoint.model, "fp16")


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("off", [-1, 1])
def test_composition_that_computes_something_again_stops(
    off: int, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hoisting(*arguments: Any, **named: Any) -> Composed:
        made = compose(*arguments, **named)
        return replace(made, spared=made.spared + off)

    monkeypatch.setattr(build, "compose", hoisting)
    with pytest.raises(
        PassFailed, match=f"^composition: expected to spare 4 nodes, spared {4 + off}$"
    ):
        build.build(checkpoint.model, "fp32")


def test_the_due_counts_here_are_those_of_every_pass() -> None:
    assert [each.name for each in ALL] == [*DUE]
    for each in ALL:
        low, high = (each.per_block * blocks + each.per_step for blocks in (2, 1))
        assert (low, high) == DUE[each.name]
