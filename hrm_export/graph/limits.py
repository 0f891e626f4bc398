"""What a graph may be made of and how large it may be, held before anything is measured."""

from typing import Final

import onnx

from hrm_export.errors import LimitExceeded
from hrm_export.graph.compose import CONTRIB
from hrm_export.graph.steps import OPSET

MEGABYTE: Final = 1e6
MOST_MEGABYTES: Final = 100.0
"""Of the graph's file, unless told otherwise."""

OPERATORS: Final = {
    "": frozenset({
        "Add", "Attention", "Cast", "Clip", "Concat", "Div", "Exp", "Expand", "Gather", "GatherND",
        "Gemm", "Identity", "MatMul", "Mul", "QuantizeLinear", "RMSNormalization", "ReduceL2",
        "Reshape", "Round", "Sigmoid", "Squeeze", "Sub", "Unsqueeze", "Where",
    }),
    CONTRIB: frozenset({"MatMulIntegerToFloat", "QuickGelu", "RotaryEmbedding"}),
}  # fmt: skip
"""By domain. Each has been shown to give a row the same bits alone and in any batch; another one
(Log and Softplus, for instance, do not) is let in with that proof, not by accident."""

OPSETS: Final = {"": OPSET, CONTRIB: 1}


def require_limits(graph: bytes, most_megabytes: float = MOST_MEGABYTES) -> None:
    """Refuse a graph that is too large, or has an operator, opset or data it must not have.

    Raises:
        LimitExceeded: naming what was found, what was expected, and what to do.
    """
    size = len(graph) / MEGABYTE
    if size > most_megabytes:
        raise LimitExceeded(
            f"the graph has {size:.1f} MB, expected at most {most_megabytes:g}; export it as fp16 "
            "(half of float32) or int8 (a quarter), train a smaller network, or allow more with "
            "--max-megabytes"
        )
    model = onnx.load_model_from_string(graph)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != OPSETS:
        raise LimitExceeded(f"opsets: expected {OPSETS}, found {opsets}")
    if model.functions:
        raise LimitExceeded(f"expected no local functions, found {len(model.functions)}")
    for node in model.graph.node:
        if node.op_type not in OPERATORS.get(node.domain, frozenset()):
            raise LimitExceeded(
                f"{node.name}: expected an operator of {sorted(OPERATORS[''] | OPERATORS[CONTRIB])}"
                f", found {node.domain}:{node.op_type}; prove that its rows do not depend on their "
                "batch, then add it to the list"
            )
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.DEFAULT:
            raise LimitExceeded(f"{tensor.name}: expected its data inside the file, found it out")
