"""The integer products of a graph and nothing else: a bound for whatever computes them."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hrm_export.errors import PassFailed
from hrm_export.graph.compose import with_outputs
from hrm_export.peers.process import Array, Levels, executed
from hrm_runtime.artifact.session import Session

PRODUCT: Final = "MatMulIntegerToFloat"
"""Of unsigned bytes and signed ones, the latter with a scale per column, to float32."""

_APART: Final = 1e-4
"""By how much the scale of each product is changed, so that no two are the same computation."""


def products_alone(graph: bytes, feeds: Mapping[str, Array]) -> tuple[bytes, dict[str, Levels]]:
    """A graph of the products of `graph`, in order, over the same shared weights.

    Products of one shape read one input: bytes that `graph` itself gives a product of that shape.
    Of each result only the shape is read, so that its memory serves the next one.

    Args:
        feeds: inputs of `graph` at batch 1.

    Returns:
        The ONNX file, and its inputs at batch 1; a larger batch repeats them along axis 0.

    Raises:
        PassFailed: there are none, or onnxruntime would not run each of them once.
    """
    model = onnx.load_model_from_string(graph)
    products = [node for node in model.graph.node if node.op_type == PRODUCT]
    if not products:
        raise PassFailed(f"expected a graph with {PRODUCT} nodes, found none")
    levels = _levels(graph, [node.input[0] for node in products], feeds)
    constants = {entry.name: entry for entry in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    kept: dict[str, TensorProto] = {}
    given: dict[str, Levels] = {}
    for number, product in enumerate(products):
        level, weight, scale, *rest = product.input
        shape = levels[level].shape
        given.setdefault(name := "levels/" + "x".join(map(str, shape)), levels[level])
        kept |= {entry: constants[entry] for entry in (weight, *rest)}
        own = numpy_helper.to_array(constants[scale]) * np.float32(1 + _APART * number)
        kept[f"scale/{number}"] = numpy_helper.from_array(own, f"scale/{number}")
        taken = (name, weight, f"scale/{number}", *rest)
        nodes += [
            helper.make_node(PRODUCT, taken, [f"result/{number}"], domain=product.domain),
            helper.make_node("Shape", [f"result/{number}"], [f"rows/{number}"], start=0, end=1),
        ]
    rows = [f"rows/{number}" for number in range(len(products))]
    nodes.append(helper.make_node("Concat", rows, ["rows"], axis=0))
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.UINT8, [f"rows of {name}", *level.shape[1:]]
        )
        for name, level in given.items()
    ]
    outputs = [helper.make_tensor_value_info("rows", TensorProto.INT64, [len(products)])]
    alone = helper.make_model(
        helper.make_graph(nodes, "products", inputs, outputs, [*kept.values()]),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    ).SerializeToString()
    run = executed(alone, given)[PRODUCT]
    if run != len(products):
        raise PassFailed(f"expected onnxruntime to run {len(products)} products, found {run}")
    return alone, given


def _levels(graph: bytes, names: list[str], feeds: Mapping[str, Array]) -> dict[str, Levels]:
    """What the products of `graph` are given."""
    wanted = [*dict.fromkeys(names)]
    made = Session(with_outputs(graph, wanted)).run(feeds)
    return {name: made[name] for name in wanted}
