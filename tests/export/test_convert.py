"""The graph: one set of weights, nothing about the machine that made it, the same bytes twice."""

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from hrm_export.convert import OPSET, convert
from hrm_export.unroll import INPUTS, Unrolled
from hrm_runtime.contract import OUTPUTS

if TYPE_CHECKING:
    from hrm_train.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def graph(checkpoint: "Checkpoint") -> onnx.ModelProto:
    return convert(checkpoint.model)


def constants(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {entry.name: numpy_helper.to_array(entry) for entry in graph.graph.initializer}


def test_every_weight_is_in_the_graph_once_however_often_it_is_used(
    graph: onnx.ModelProto, checkpoint: "Checkpoint"
) -> None:
    matrices = [
        value
        for value in constants(graph).values()
        if value.dtype == np.float32 and value.ndim == 2 and value.size > 64
    ]
    expected = [p.detach() for p in checkpoint.model.parameters() if p.ndim == 2 and p.numel() > 64]
    assert len(matrices) == len(expected)
    products = sum(node.op_type in {"MatMul", "Gemm"} for node in graph.graph.node)
    assert products > 2 * len(matrices)  # two cycles of two timesteps use each block several times
    for weight in expected:
        found = [m for m in matrices if m.shape in {tuple(weight.shape), tuple(weight.T.shape)}]
        assert any(
            np.array_equal(m, weight) if m.shape == weight.shape else np.array_equal(m, weight.T)
            for m in found
        ) or any(np.array_equal(m, weight.T) for m in found)


def test_only_the_pinned_opset_is_used_and_only_single_precision(graph: onnx.ModelProto) -> None:
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
    assert OPSET == 23
    kinds = {value.dtype for value in constants(graph).values()}
    assert kinds <= {np.dtype(np.float32), np.dtype(np.int64), np.dtype(np.bool_)}
    casts = [node for node in graph.graph.node if node.op_type == "Cast"]
    targets = {attribute.i for node in casts for attribute in node.attribute}
    assert onnx.TensorProto.DOUBLE not in targets


def test_nothing_about_the_machine_or_the_code_is_left_in_the_graph(graph: onnx.ModelProto) -> None:
    assert not graph.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    text = graph.SerializeToString()
    assert b"hrm_train" not in text
    assert b".py" not in text


def test_weights_lie_inside_the_file(graph: onnx.ModelProto) -> None:
    locations = {entry.data_location for entry in graph.graph.initializer}
    assert locations == {onnx.TensorProto.DEFAULT}


def test_the_states_default_to_the_initial_ones(
    graph: onnx.ModelProto, checkpoint: "Checkpoint"
) -> None:
    zH_1SD, zL_1SD = checkpoint.model.initialize_states()
    found = constants(graph)
    assert np.array_equal(found["z_H"], zH_1SD.numpy())
    assert np.array_equal(found["z_L"], zL_1SD.numpy())
    assert [entry.name for entry in graph.graph.input] == list(INPUTS)
    assert [entry.name for entry in graph.graph.output] == list(OUTPUTS)


def test_the_same_model_gives_the_same_bytes(
    graph: onnx.ModelProto, checkpoint: "Checkpoint"
) -> None:
    again = convert(checkpoint.model)
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(
        deterministic=True
    )


def test_the_unrolled_module_is_the_model_with_its_outputs_in_order(
    checkpoint: "Checkpoint",
) -> None:
    model = checkpoint.model
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 6, 54, generator=generator)
    account = torch.randn(3, 5, generator=generator)
    ids = torch.tensor([0, 1, 2])
    states = tuple(
        torch.randn(3, *z.shape[1:], generator=generator) for z in model.initialize_states()
    )
    unrolled = dict(
        zip(OUTPUTS, Unrolled(model)(features, account, ids, ids, *states), strict=True)
    )
    outputs, (zH_BSD, zL_BSD) = model(features, account, ids, ids, states)
    for name, expected in {**outputs, "z_H_out": zH_BSD, "z_L_out": zL_BSD}.items():
        assert torch.equal(unrolled[name], expected), name
