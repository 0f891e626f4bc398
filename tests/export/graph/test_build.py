"""The graph: torch's numbers, one set of weights, no node too many, the same bytes twice."""

import copy
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from remembered import Remembered
from remembered import graphs as graphs_of

from hrm_export.graph.build import COMPOSED, FUSED, Built, Change, build, stages
from hrm_export.graph.compose import high_state, low_state
from hrm_export.graph.steps import convert
from hrm_export.proof.gates import FLOAT_TOLERANCES, INT8_TOLERANCES
from hrm_export.proof.inputs import Inputs
from hrm_export.proof.parity import torch_run, twin_of
from hrm_runtime import Contract, Model
from hrm_runtime.artifact.contract import OUTPUTS, Precision
from hrm_runtime.artifact.golden import deviation
from hrm_runtime.artifact.segments import Outputs, Run
from hrm_runtime.artifact.session import Session
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.network.quantisation import quantise_weight

Arrays = dict[str, npt.NDArray[Any]]
Graphs = Callable[[Precision], dict[str, Built]]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture
def source(
    request: pytest.FixtureRequest, checkpoint: Checkpoint, even: Checkpoint, quantised: Checkpoint
) -> HierarchicalReasoningModel:
    """The network of a precision, or of the shape named."""
    kinds = {"fp32": checkpoint, "fp16": checkpoint, "int8": quantised}
    return {**kinds, "uneven": checkpoint, "even": even}[request.param].model


def parsed(built: Built) -> onnx.ModelProto:
    return onnx.load_model_from_string(built.to_bytes())


def constants(graph: onnx.ModelProto) -> Arrays:
    return {entry.name: numpy_helper.to_array(entry) for entry in graph.graph.initializer}


def is_weight(name: str) -> bool:
    """Whether a constant is the network's; others are the graph's own."""
    return "." in name


# what is stored


def test_every_weight_is_in_the_graph_once_however_often_it_is_used(
    graphs: Graphs, checkpoint: Checkpoint
) -> None:
    graph = parsed(graphs("fp32")[FUSED])
    found = {name: value for name, value in constants(graph).items() if is_weight(name)}
    state = checkpoint.model.state_dict()
    for name in ("h_module.initial_D", "l_module.initial_D"):  # whole states are stored
        del state[name]
    for name, weight in state.items():
        parts = [found.pop(part) for part in sorted(found, key=columns) if part_of(part) == name]
        whole = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        stored = whole.T if whole.shape != weight.shape or is_product(name) else whole
        np.testing.assert_array_equal(stored, weight, err_msg=name, strict=True)
    assert found == {}
    used = Counter(value for node in graph.graph.node for value in node.input)
    assert used["l_module.blocks.0.mlp.down.weight"] == 2 * 2
    assert used["h_module.blocks.0.mlp.down.weight"] == 2


def part_of(name: str) -> str:
    return name.partition("[")[0]


def columns(name: str) -> int:
    """Where a part of a weight begins."""
    return int(name.partition("[")[2].partition(":")[0] or 0)


def is_product(name: str) -> bool:
    """Whether a weight is stored with inputs as rows: a square one does not show it."""
    return "module." in name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_the_pinned_opsets_are_used(precision: Precision, graphs: Graphs) -> None:
    for built in graphs(precision).values():
        graph = parsed(built)
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [
            ("", 23), ("com.microsoft", 1),
        ]  # fmt: skip
        assert graph.ir_version == 10
        assert not graph.functions


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_is_computed_in_double_precision(precision: Precision, graphs: Graphs) -> None:
    for built in graphs(precision).values():
        graph = parsed(built)
        kinds = {value.dtype.name for value in constants(graph).values()}
        assert kinds <= {"float32", "int64", "bool"} | {
            "fp32": set(), "fp16": {"float16"}, "int8": {"int8", "uint8"}
        }[precision]  # fmt: skip
        targets = {
            attribute.i
            for node in graph.graph.node
            if node.op_type == "Cast"
            for attribute in node.attribute
        }
        assert targets <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nothing_about_the_machine_or_the_code_is_left(
    precision: Precision, graphs: Graphs
) -> None:
    for built in graphs(precision).values():
        graph = parsed(built)
        assert not graph.metadata_props
        assert not graph.graph.metadata_props
        assert (graph.producer_name, graph.doc_string, graph.graph.doc_string) == ("", "", "")
        values = [*graph.graph.node, *graph.graph.value_info, *graph.graph.initializer]
        values += [*graph.graph.input, *graph.graph.output]
        assert not any(one.metadata_props or one.doc_string for one in values)
        text = built.to_bytes()
        for trace in (b"hrm_train", b"torch", b".py", str(Path.cwd()).encode()):
            assert trace not in text, trace


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_lie_inside_the_file(precision: Precision, graphs: Graphs) -> None:
    for built in graphs(precision).values():
        for entry in parsed(built).graph.initializer:
            assert entry.data_location == onnx.TensorProto.DEFAULT
            assert not entry.external_data


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_states_default_to_the_initial_ones(
    precision: Precision, graphs: Graphs, checkpoint: Checkpoint
) -> None:
    zH_1SD, zL_1SD = checkpoint.model.initialize_states()
    for built in graphs(precision).values():
        graph = parsed(built)
        found = constants(graph)
        np.testing.assert_array_equal(found["z_H"], zH_1SD.numpy(), strict=True)
        np.testing.assert_array_equal(found["z_L"], zL_1SD.numpy(), strict=True)
        np.testing.assert_array_equal(found["initial/z_L"], zL_1SD.numpy(), strict=True)
        assert {entry.name for entry in graph.graph.input} == {
            "features", "account", "instrument", "timeframe", "z_H", "z_L",
        }  # fmt: skip
        assert [entry.name for entry in graph.graph.output] == list(OUTPUTS)
        session = Session(built.to_bytes())
        assert session.optional_inputs().keys() == {"z_H", "z_L"}


def test_networks_of_one_shape_are_converted_alike_but_for_their_weights(
    quantised: Checkpoint, remembered: Remembered
) -> None:
    """So the same network gives the same bytes, and tests convert one of each shape."""
    model = quantised.model.without_quantisers()
    found, expected = graphs_of(convert(model)), graphs_of(remembered.convert(model))
    for name, graph in expected.items():
        assert content(found[name]) == content(graph), name


def content(graph: ir.Model) -> str:
    """The digest of all but where in the code each node came from."""
    ClearMetadataAndDocStringPass()(graph)
    return hashlib.sha256(ir.to_proto(graph).SerializeToString(deterministic=True)).hexdigest()


@pytest.mark.usefixtures("quick_export")
def test_the_same_network_gives_the_same_bytes(quantised: Checkpoint) -> None:
    first, second = ([*stages(quantised.model, "int8")] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert (one.stage, one.changes) == (other.stage, other.changes)
        assert one.to_bytes() == other.to_bytes(), one.stage


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_built_is_the_last_stage(
    precision: Precision, graphs: Graphs, checkpoint: Checkpoint, quantised: Checkpoint
) -> None:
    source = quantised if precision == "int8" else checkpoint
    *_, last = graphs(precision).values()
    assert build(source.model, precision) == last.to_bytes()


# what is computed

SCHEDULES = [(1, 1), (2, 3), (3, 1)]


def scheduled(
    model: HierarchicalReasoningModel, cycles: int, timesteps: int, reset_l: bool
) -> HierarchicalReasoningModel:
    other = copy.deepcopy(model)
    other.cycles, other.timesteps, other.reset_l = cycles, timesteps, reset_l
    return other


def run_of(built: Built, contract: Contract, model: HierarchicalReasoningModel) -> Run:
    """The graph, through the code that serves."""
    _, tokens, h_dim = model.initialize_states()[0].shape
    l_dim = model.initialize_states()[1].shape[-1]
    graph = replace(contract.graph, tokens=tokens, h_dim=h_dim, l_dim=l_dim)
    return Model(replace(contract, graph=graph), "", Session(built.to_bytes())).run


def largest(found: Outputs, expected: Outputs) -> dict[str, float]:
    return {name: float(deviation(found[name], expected[name]).max()) for name in OUTPUTS}


def require_equal(found: Outputs, expected: Outputs, what: str) -> None:
    """Up to sums in another order, which single entries of a state feel most."""
    for name, error in largest(found, expected).items():
        assert error < (1e-4 if name in {"z_H_out", "z_L_out"} else 2e-5), (what, name)


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("reset_l", [True, False], ids=["reset", "carried on"])
@pytest.mark.parametrize(("cycles", "timesteps"), SCHEDULES)
@pytest.mark.parametrize("source", ["uneven", "even"], indirect=True)
def test_a_graph_is_the_eager_network(
    source: HierarchicalReasoningModel,
    cycles: int,
    timesteps: int,
    reset_l: bool,
    contract: Contract,
    inputs: Inputs,
) -> None:
    model = scheduled(source, cycles, timesteps, reset_l)
    eager = torch_run(model)
    rng = np.random.default_rng(0)
    whole = {
        name: rng.normal(size=(len(inputs), *z.shape[1:])).astype(np.float32)
        for name, z in zip(("z_H", "z_L"), model.initialize_states(), strict=True)
    }
    for built in stages(model, "fp32"):
        run = run_of(built, contract, model)
        for states in ({}, whole, {name: z[:1] for name, z in whole.items()}):
            expected, found = eager(*inputs.arrays, **states), run(*inputs.arrays, **states)
            assert found["l_residual"].shape == (len(inputs), cycles, timesteps)
            require_equal(found, expected, built.stage)
        moved = run(*inputs.arrays, **whole)["value"] - run(*inputs.arrays)["value"]
        assert np.abs(moved).min() > 1e-4  # states that are given count


def test_without_a_reset_the_second_cycle_starts_elsewhere(
    checkpoint: Checkpoint, inputs: Inputs
) -> None:
    """Or the graphs above would prove nothing about it."""
    with_reset, without = (
        torch_run(scheduled(checkpoint.model, 2, 3, reset_l))(*inputs.arrays)
        for reset_l in (True, False)
    )
    assert np.abs(with_reset["z_L_out"] - without["z_L_out"]).max() > 0.01


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_has_the_same_bits_alone_in_a_batch_and_in_another_order(
    precision: Precision, graphs: Graphs, contract: Contract, inputs: Inputs, checkpoint: Checkpoint
) -> None:
    count = 40
    *_, built = graphs(precision).values()
    run = run_of(built, contract, checkpoint.model)
    arrays = inputs.slice(0, count).arrays
    order = np.random.default_rng(0).permutation(count)
    states: Outputs = {}
    for _ in range(2):
        together = run(*arrays, **states)
        shuffled = run(
            *(array[order] for array in arrays), **{name: z[order] for name, z in states.items()}
        )
        alone = [
            run(
                *(array[[row]] for array in arrays),
                **{name: z[[row]] for name, z in states.items()},
            )
            for row in range(count)
        ]
        for name in OUTPUTS:
            stacked = np.concatenate([one[name] for one in alone])
            np.testing.assert_array_equal(together[name], stacked, err_msg=name)
            np.testing.assert_array_equal(together[name][order], shuffled[name], err_msg=name)
        states = {name: together[f"{name}_out"] for name in ("z_H", "z_L")}


def two_segments(run: Run, start: Outputs, inputs: Inputs) -> list[Outputs]:
    """From the initial states, and from those in `start`."""
    states = {name: start[f"{name}_out"] for name in ("z_H", "z_L")}
    return [run(*inputs.arrays), run(*inputs.arrays, **states)]


def test_integers_are_those_of_torch(
    graphs: Graphs, contract: Contract, quantised: Checkpoint, all_inputs: Inputs
) -> None:
    model = quantised.model
    start = torch_run(model)(*all_inputs.arrays)
    expected = two_segments(torch_run(model), start, all_inputs)
    run = run_of(graphs("int8")["int8"], contract, model)
    found = two_segments(run, start, all_inputs)
    worst = np.zeros(len(all_inputs))
    for one, other in zip(found, expected, strict=True):
        for name in OUTPUTS:
            error = deviation(one[name], other[name]).reshape(len(worst), -1).max(axis=1)
            assert error.max() <= INT8_TOLERANCES[name]
            worst = np.maximum(worst, error)
    assert (worst < 1e-5).mean() > 0.8  # in the others an input stood between two levels
    plain = torch_run(model.without_quantisers())(*all_inputs.arrays)
    assert np.median(np.abs(plain["value"] - expected[0]["value"])) > 1e-3


def test_halves_are_those_of_torch_with_rounded_weights(
    graphs: Graphs, contract: Contract, checkpoint: Checkpoint, all_inputs: Inputs
) -> None:
    twin = twin_of(checkpoint.model, "fp16")
    start = torch_run(twin)(*all_inputs.arrays)
    expected = two_segments(torch_run(twin), start, all_inputs)
    run = run_of(graphs("fp16")["fp16"], contract, twin)
    for one, other in zip(two_segments(run, start, all_inputs), expected, strict=True):
        errors = largest(one, other)
        assert all(error <= FLOAT_TOLERANCES[name] for name, error in errors.items())
        require_equal(one, other, "fp16")
    plain = torch_run(checkpoint.model)(*all_inputs.arrays)
    assert np.median(np.abs(plain["value"] - expected[0]["value"])) > 1e-5


# how numbers are stored


def test_every_matrix_is_stored_as_halves(graphs: Graphs, checkpoint: Checkpoint) -> None:
    fused = constants(parsed(graphs("fp16")[FUSED]))
    graph = parsed(graphs("fp16")["fp16"])
    found = constants(graph)
    matrices = {name for name, value in fused.items() if is_weight(name) and value.ndim == 2}
    assert len(matrices) == 8 + 2 * 7 + 2
    for name in matrices:
        half = found.pop(f"{name}.half")
        np.testing.assert_array_equal(half, fused.pop(name).astype(np.float16), strict=True)
    assert found.keys() == fused.keys()  # all else as it was
    for name, value in found.items():
        np.testing.assert_array_equal(value, fused[name], strict=True)
    casts = [node for node in graph.graph.node if node.output[0] in matrices]
    assert {node.op_type for node in casts} == {"Cast"}
    assert len(casts) == len(matrices)


def test_integers_are_stored_in_seven_bits_with_the_scales_of_the_model(
    graphs: Graphs, quantised: Checkpoint
) -> None:
    graph = parsed(graphs("int8")["int8"])
    found, model = constants(graph), quantised.model
    assert {name for name, value in found.items() if value.dtype == np.int8} == {
        f"{name}.weight{part}"
        for name, product in model.products.items()
        for part in parts_of(name, product.out_features)
    }
    for name, product in model.products.items():
        levels, scales = quantise_weight(product.weight.detach())
        stored = [found[f"{name}.weight{part}"] for part in parts_of(name, len(scales))]
        scale = [found[f"{name}.weight{part}.scale"] for part in parts_of(name, len(scales))]
        whole = np.concatenate(stored, axis=1)
        np.testing.assert_array_equal(whole, levels.detach().numpy().T.astype(np.int8), strict=True)
        np.testing.assert_array_equal(np.concatenate(scale), scales.numpy(), strict=True)
        assert (np.abs(whole.astype(np.int64)).max(axis=0) == 64).all()
        input_scale = found[f"{name}.input_scale"]
        np.testing.assert_array_equal(input_scale, model.scales[name].numpy(), strict=True)
    zero_points = [value for value in found.values() if value.dtype == np.uint8]
    assert [(value.shape, int(value)) for value in zero_points] == [((), 128)] * 2


def parts_of(name: str, width: int) -> list[str]:
    """What of a weight is a constant of its own."""
    number = {"qkv": 3, "gate_up": 2}.get(name.rpartition(".")[2], 1)
    ends = range(0, width + 1, width // number)
    if number == 1:
        return [""]
    return [f"[{start}:{end}]" for start, end in pairwise(ends)]


def test_every_integer_product_takes_bytes_around_128_and_both_scales(graphs: Graphs) -> None:
    graph = parsed(graphs("int8")["int8"]).graph
    found = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 6 * 7 + 2 + 2
    for node in products:
        levels, weight, scale, weight_scale, zero = node.input  # none for the weights: theirs is 0
        quantiser = makers[levels]
        assert quantiser.op_type == "QuantizeLinear"
        assert list(quantiser.input[1:]) == [scale, zero]
        assert scale == f"{part_of(weight).removesuffix('.weight')}.input_scale"
        assert weight_scale == f"{weight}.scale"
        assert (found[zero].dtype, int(found[zero])) == (np.uint8, 128)


# how it is made


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("source", "cycles", "timesteps", "expected"),
    [
        ("uneven", 2, 2, [2 * 4 + 2, 2 * 2, 2 * 2, 2, 2, 2, 2 * 2 * 1]),
        ("uneven", 3, 4, [2 * 4 + 2, 2 * 2, 2 * 2, 2, 2, 2, 2 * 3 * 3]),
        ("uneven", 4, 1, [2 * 4 + 2, 2 * 2, 2 * 2, 2, 2, 2, 0]),
        ("even", 2, 5, [3 * 4, 3 * 2, 3 * 2, 3, 3, 2, 1 * 2 * 4]),
    ],
    indirect=["source"],
)
def test_changes_are_those_of_the_network_s_size(
    source: HierarchicalReasoningModel, cycles: int, timesteps: int, expected: list[int]
) -> None:
    composed, fused = stages(scheduled(source, cycles, timesteps, True), "fp32")
    folded, cleaned, *others = fused.changes
    assert composed.changes == (folded, cleaned)
    assert cleaned.count > 0
    assert [folded, *others] == [
        Change(name, count)
        for name, count in zip(
            (
                "fold transposes of weights",
                "settle the scale of norms",
                "split products instead of their results",
                "fuse rotation and attention",
                "fuse SiLU",
                "fuse the residual",
                "compute once what a cycle does not change",
            ),
            expected,
            strict=True,
        )
    ]


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        ("fp16", Change("store weights as float16", 8 + 2 * 7 + 2)),
        ("int8", Change("quantise products", 2 * 7 + 2)),
    ],
)
def test_the_last_stage_is_the_precision_and_says_what_it_changed(
    precision: Precision, change: Change, graphs: Graphs
) -> None:
    composed, fused, last = graphs(precision).values()
    assert [built.stage for built in (composed, fused, last)] == [COMPOSED, FUSED, precision]
    assert last.changes == (*fused.changes, change)


def test_single_precision_ends_with_fusion(graphs: Graphs) -> None:
    assert [*graphs("fp32")] == [COMPOSED, FUSED]


def test_stages_on_the_way_are_of_the_network_without_quantisers(
    graphs: Graphs, contract: Contract, quantised: Checkpoint, inputs: Inputs
) -> None:
    expected = torch_run(quantised.model.without_quantisers())(*inputs.arrays)
    for stage in (COMPOSED, FUSED):
        run = run_of(graphs("int8")[stage], contract, quantised.model)
        require_equal(run(*inputs.arrays), expected, stage)


FLOAT_BLOCK = Counter(
    MatMul=7, RotaryEmbedding=2, Attention=1, Add=2, RMSNormalization=2, QuickGelu=1, Mul=1
)
INTEGER_BLOCK = Counter(
    MatMulIntegerToFloat=7, QuantizeLinear=4, RotaryEmbedding=2, Attention=1, Add=2,
    RMSNormalization=2, QuickGelu=1, Mul=1,
)  # fmt: skip
STEP = Counter(Add=1, Sub=1, ReduceL2=1, Mul=1)
"""What is injected, and the residual."""

FLOAT_JOIN, INTEGER_JOIN = Counter(MatMul=1), Counter(MatMulIntegerToFloat=1, QuantizeLinear=1)
INJECTED = Counter(Add=1)
"""Of what a cycle does not change: the state of H and the input."""


def times(counted: Counter[str], count: int) -> Counter[str]:
    return Counter({name: count * number for name, number in counted.items()})


def written(graph: onnx.ModelProto, prefix: str) -> Counter[str]:
    """The operators of one run of a step."""
    names = [(node.name.rpartition("/")[0], node.op_type) for node in graph.graph.node]
    return Counter(op_type for name, op_type in names if name == prefix)


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("source", "precision", "low", "high", "low_join", "high_join"),
    [
        ("fp32", "fp32", FLOAT_BLOCK, FLOAT_BLOCK, FLOAT_JOIN, FLOAT_JOIN),
        ("int8", "int8", INTEGER_BLOCK, INTEGER_BLOCK, INTEGER_JOIN, INTEGER_JOIN),
        ("even", "fp32", times(FLOAT_BLOCK, 2), FLOAT_BLOCK, Counter(), Counter()),
    ],
    indirect=["source"],
)
def test_a_step_has_the_fewest_nodes(
    source: HierarchicalReasoningModel,
    precision: Precision,
    low: Counter[str],
    high: Counter[str],
    low_join: Counter[str],
    high_join: Counter[str],
) -> None:
    *_, last = stages(scheduled(source, 3, 4, True), precision)
    graph = parsed(last)
    for cycle in range(1, 4):
        first, *later = (low_state(cycle, step).rpartition("/")[0] for step in range(1, 5))
        assert written(graph, first) == low + STEP + INJECTED + low_join
        for step in later:
            assert written(graph, step) == low + STEP
        assert written(graph, high_state(cycle).rpartition("/")[0]) == high + STEP + high_join
    assert sum(FLOAT_BLOCK.values()) == 16
    assert sum(INTEGER_BLOCK.values()) == 20


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_cycle_does_not_change_is_computed_once(
    precision: Precision, checkpoint: Checkpoint, quantised: Checkpoint
) -> None:
    source = quantised if precision == "int8" else checkpoint
    composed, *others = stages(scheduled(source.model, 3, 5, False), precision)
    assert readers(parsed(composed), "l_module.from_h.weight") == 3 * 5
    assert readers(parsed(composed), "encode/x") == 3 * 5
    for built in others:
        graph = parsed(built)
        assert readers(graph, "l_module.from_h.weight") == 3
        assert readers(graph, "encode/x") == 3
        assert readers(graph, "h_module.from_l.weight") == 3
        assert readers(graph, "l_module.blocks.0.attention.out.weight") == 3 * 5


def readers(graph: onnx.ModelProto, name: str) -> int:
    return sum(name in node.input for node in graph.graph.node)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_values_are_named_after_what_they_are(precision: Precision, graphs: Graphs) -> None:
    for built in graphs(precision).values():
        graph = parsed(built)
        names = [node.name for node in graph.graph.node]
        assert len(set(names)) == len(names)
        made = {output for node in graph.graph.node for output in node.output}
        assert {low_state(n, t) for n in (1, 2) for t in (1, 2)} < made
        assert {high_state(1), high_state(2)} < made


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_graph_is_a_valid_onnx_file(precision: Precision, graphs: Any) -> None:
    for built in graphs(precision).values():
        model = onnx.load_model_from_string(built.to_bytes())
        onnx.checker.check_model(model)
        assert [entry.name for entry in model.graph.output] == list(OUTPUTS)
        assert all(entry.type.tensor_type.shape.dim for entry in model.graph.output)
