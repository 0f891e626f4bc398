"""What a graph may be made of and how large it may be."""

import re
from collections.abc import Callable

import onnx
import pytest
from onnx import helper

from hrm_export.errors import LimitExceeded
from hrm_export.graph.build import COMPOSED, FUSED, Built
from hrm_export.graph.compose import CONTRIB
from hrm_export.graph.limits import MOST_MEGABYTES, OPERATORS, OPSETS, require_limits
from hrm_runtime.artifact.contract import Precision

Graphs = Callable[[Precision], dict[str, Built]]


@pytest.fixture
def graph(graphs: Graphs) -> onnx.ModelProto:
    """A fused graph, to be edited."""
    return onnx.load_model_from_string(graphs("fp32")[FUSED].to_bytes())


def refuse(graph: onnx.ModelProto, message: str) -> None:
    with pytest.raises(LimitExceeded, match=message):
        require_limits(graph.SerializeToString())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_is_within(precision: Precision, graphs: Graphs) -> None:
    *_, last = graphs(precision).values()
    require_limits(last.to_bytes())


def test_every_operator_that_is_allowed_is_used(graphs: Graphs) -> None:
    """One that is not has no proof that its rows do not depend on their batch."""
    used = {
        (node.domain, node.op_type)
        for precision in ("fp32", "fp16", "int8")
        for node in onnx.load_model_from_string(
            [*graphs(precision).values()][-1].to_bytes()
        ).graph.node
    }
    allowed = {(domain, name) for domain, names in OPERATORS.items() for name in names}
    assert used == allowed


def test_torch_s_own_operators_are_not(graphs: Graphs) -> None:
    with pytest.raises(LimitExceeded, match=r"found :(ConstantOfShape|Shape|Split|Transpose);"):
        require_limits(graphs("fp32")[COMPOSED].to_bytes())


def test_a_graph_that_is_too_large_is_told_what_makes_it_smaller(graph: onnx.ModelProto) -> None:
    content = graph.SerializeToString()
    require_limits(content, len(content) / 1e6)
    least = (len(content) - 1) / 1e6
    expected = (
        f"the graph has 0.0 MB, expected at most {least:g}; export it as fp16 (half of float32) or "
        "int8 (a quarter), train a smaller network, or allow more with --max-megabytes"
    )
    with pytest.raises(LimitExceeded, match=f"^{re.escape(expected)}$"):
        require_limits(content, least)


def test_a_hundred_megabytes_are_the_most_unless_told_otherwise() -> None:
    assert MOST_MEGABYTES == 100
    with pytest.raises(LimitExceeded, match=r"^the graph has 100\.1 MB, expected at most 100;"):
        require_limits(bytes(100_100_000))


@pytest.mark.parametrize(
    ("domain", "op_type"),
    [("", "Softplus"), ("", "Log"), (CONTRIB, "Attention"), ("", "QuickGelu"), ("mine", "Add")],
)
def test_an_operator_that_is_not_on_the_list_is_named(
    domain: str, op_type: str, graph: onnx.ModelProto
) -> None:
    graph.graph.node.append(
        helper.make_node(op_type, ["value"], ["more"], name="the_one", domain=domain)
    )
    refuse(
        graph,
        rf"^the_one: expected an operator of \['Add', 'Attention', .*, found {domain}:{op_type}; "
        "prove that its rows do not depend on their batch, then add it to the list$",
    )


@pytest.mark.parametrize(
    "opsets",
    [{"": 22, CONTRIB: 1}, {"": 25, CONTRIB: 1}, {"": 23}, {"": 23, CONTRIB: 1, "mine": 1}],
    ids=str,
)
def test_another_opset_is_refused(opsets: dict[str, int], graph: onnx.ModelProto) -> None:
    del graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(*entry) for entry in opsets.items())
    refuse(graph, f"^{re.escape(f'opsets: expected {OPSETS}, found {opsets}')}$")


def test_a_local_function_is_refused(graph: onnx.ModelProto) -> None:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph.functions.append(
        helper.make_function("mine", "Twice", ["x"], ["y"], [node], [helper.make_opsetid("", 23)])
    )
    refuse(graph, "^expected no local functions, found 1$")


def test_data_outside_the_file_is_refused(graph: onnx.ModelProto) -> None:
    (weight,) = (
        entry for entry in graph.graph.initializer if entry.name == "value_head.value.weight"
    )
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    refuse(graph, "^value_head.value.weight: expected its data inside the file, found it out$")
