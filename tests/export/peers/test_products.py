"""The products alone are those of the int8 graph: as many, in order, over the same weights."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hrm_export.errors import PassFailed
from hrm_export.graph.build import Built
from hrm_export.peers.process import by_name, executed, products
from hrm_export.peers.products import PRODUCT, products_alone
from hrm_export.proof.inputs import Inputs
from hrm_runtime.artifact.contract import Precision
from hrm_runtime.artifact.session import Session

Graphs = Callable[[Precision], dict[str, Built]]


@pytest.fixture(scope="module")
def graph(graphs: Graphs) -> bytes:
    return graphs("int8")["int8"].to_bytes()


@pytest.fixture(scope="module")
def feeds(inputs: Inputs) -> dict[str, Any]:
    """Of one window."""
    return by_name([array[:1] for array in inputs.arrays])


@pytest.fixture(scope="module")
def alone(graph: bytes, feeds: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    return products_alone(graph, feeds)


def of(graph: bytes) -> list[onnx.NodeProto]:
    """The products of a graph."""
    nodes = onnx.load_model_from_string(graph).graph.node
    return [node for node in nodes if node.op_type == PRODUCT]


def constants(graph: bytes) -> dict[str, Any]:
    entries = onnx.load_model_from_string(graph).graph.initializer
    return {entry.name: numpy_helper.to_array(entry) for entry in entries}


def test_they_are_the_same_products_in_the_same_order(
    graph: bytes, alone: tuple[bytes, dict[str, Any]]
) -> None:
    whole, part = of(graph), of(alone[0])
    # seven products in each of L's four steps and H's two; L is told of H and H of L every cycle
    assert len(whole) == 7 * (4 + 2) + 2 + 2
    assert [node.input[1] for node in part] == [node.input[1] for node in whole]
    assert [list(node.input[3:]) for node in part] == [list(node.input[3:]) for node in whole]
    weights = {node.input[1] for node in whole}
    assert len(weights) == 2 * 7 + 2
    for name in weights:
        np.testing.assert_array_equal(constants(alone[0])[name], constants(graph)[name])


def test_each_is_run_once_and_nothing_else_computes(
    graph: bytes, alone: tuple[bytes, dict[str, Any]], feeds: dict[str, Any]
) -> None:
    run = executed(*alone)
    assert run == {PRODUCT: len(of(graph)), "Shape": len(of(graph)), "Concat": 1}
    assert executed(graph, feeds)[PRODUCT] == run[PRODUCT]


def test_they_are_given_bytes_of_the_shapes_that_they_have_in_the_graph(
    graph: bytes, alone: tuple[bytes, dict[str, Any]], feeds: dict[str, Any]
) -> None:
    part, levels = alone
    shapes = Counter(levels[node.input[0]].shape for node in of(part))
    model = onnx.load_model_from_string(graph)
    names = [node.input[0] for node in of(graph)]
    for name in dict.fromkeys(names):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 2, None))  # uint8
    real = Session(model.SerializeToString()).run(feeds)
    assert shapes == Counter(real[name].shape for name in names)
    for name, level in levels.items():
        assert level.dtype == np.uint8
        assert any(np.array_equal(level, real[other]) for other in names), name


@pytest.mark.parametrize("batch", [1, 3])
def test_their_worker_runs_them_at_any_batch(
    batch: int, alone: tuple[bytes, dict[str, Any]], tmp_path: Any
) -> None:
    graph, levels = alone
    (tmp_path / "products.onnx").write_bytes(graph)
    np.savez(tmp_path / "products.npz", **levels)
    opened = products(str(tmp_path / "products.onnx"), str(tmp_path / "products.npz"))()
    (rows,) = opened.run(np.zeros((batch, 6, 54)), None, None, None)  # type: ignore[misc]
    assert rows.tolist() == [batch] * len(of(graph))


def test_a_graph_without_such_products_is_refused(graphs: Graphs, feeds: dict[str, Any]) -> None:
    with pytest.raises(PassFailed, match="expected a graph with MatMulIntegerToFloat nodes, found"):
        products_alone(graphs("fp32")["fused"].to_bytes(), feeds)


def test_products_that_onnxruntime_leaves_out_are_an_error(
    graph: bytes, feeds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrm_export.peers.products.executed", lambda *_: Counter({PRODUCT: 3}))
    with pytest.raises(PassFailed, match=r"expected onnxruntime to run 46 products, found 3"):
        products_alone(graph, feeds)
