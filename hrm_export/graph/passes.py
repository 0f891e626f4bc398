"""Passes over the graph of one step: each changes one thing and counts how often it did."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript import optimizer
from onnxscript.rewriter.pattern import RewriteRule

from hrm_export.errors import PassFailed
from hrm_export.graph.compose import CONTRIB, initializer, name_of
from hrm_train.network.quantisation import ZERO_POINT, quantise_weight

Array = npt.NDArray[Any]
Builder = Any
"""Makes a node of any operator, by its name: in a pattern to find it, else to put it there."""

_WHOLE: Final = 2**31
"""Fold constants up to this size, which is all of them."""


def fold_transposes(model: ir.Model) -> int:
    """Store weights [in, out], as a product wants them that has rows of the input on its left.

    torch stores them [out, in] before a Transpose, which hides from all else that they are
    constant.
    """
    found = [
        node
        for node in model.graph
        if node.op_type == "Transpose"
        and tuple(node.attributes["perm"].as_ints()) == (1, 0)
        and _is_constant(weight := node.inputs[0])
        and _once(weight)
    ]
    for node in found:
        weight = _input(node, 0)
        _set(weight, np.ascontiguousarray(_array(weight).T))
        _bypass(node, weight)
    return len(found)


def clean(model: ir.Model) -> int:
    """Fold what is constant and drop what nothing reads, by onnxscript's optimizer."""
    before = model.graph.num_nodes()
    optimizer.optimize_ir(model, input_size_limit=_WHOLE, output_size_limit=_WHOLE)
    ClearMetadataAndDocStringPass()(model)
    return before - model.graph.num_nodes()


def settle_norms(model: ir.Model) -> int:
    """Give each RMSNormalization a constant scale of ones.

    torch, which has none, makes one at every run from the shape of the input.
    """
    changed = 0
    for node in list(model.graph):
        if node.op_type != "RMSNormalization":
            continue
        ones = _producer(node, 1, "ConstantOfShape")
        width = _last(_input(node, 0))
        if ones is None or width is None:
            continue
        scale = _constant(model, f"ones/{width}", np.ones(width, np.float32))
        node.replace_input_with(1, scale)
        shape = _producer(ones, 0, "Shape")
        model.graph.remove([ones, *([shape] if shape is not None else [])], safe=True)
        changed += 1
    return changed


def split_products(model: ir.Model) -> int:
    """Replace a product and the Split behind it by a product for each part.

    The same sums; what is saved is the copy, which costs up to a seventh of the product.
    """
    changed = 0
    for split in list(model.graph):
        product = _producer(split, 0, "MatMul") if split.op_type == "Split" else None
        if product is None or not _is_constant(weight := _input(product, 1)):
            continue
        whole, width = _array(weight), len(split.outputs)
        parts = np.split(whole, width, axis=1)
        ends = np.cumsum([0, *(part.shape[1] for part in parts)])
        for part, (start, end), output in zip(parts, pairwise(ends), split.outputs, strict=True):
            name = f"{name_of(weight)}[{start}:{end}]"
            columns = _constant(model, name, np.ascontiguousarray(part))
            single = ir.node("MatMul", [product.inputs[0], columns])
            model.graph.insert_before(product, single)
            _hand_over(output, single.outputs[0])
        model.graph.remove([split, product], safe=True)
        del model.graph.initializers[name_of(weight)]
        changed += 1
    return changed


def fuse_attention(model: ir.Model) -> int:
    """Replace rotation, heads and attention by RotaryEmbedding and Attention on [B, S, D]."""

    def heads(op: Builder, x: Any, shape: Any) -> Any:
        return op.Transpose(op.Reshape(x, shape), perm=[0, 2, 1, 3])

    def rotated(op: Builder, x: Any, shape: Any, cos: Any, sin: Any) -> Any:
        x = heads(op, x, shape)
        first, second = op.Split(x, axis=3, num_outputs=2, _outputs=2)
        turned = op.Concat(op.Neg(second), first, axis=-1)
        return op.Add(op.Mul(x, cos), op.Mul(turned, sin))

    def match(
        op: Builder, q: Any, k: Any, v: Any, cos: Any, sin: Any, shape: Any, flat: Any
    ) -> Any:
        query, key = rotated(op, q, shape, cos, sin), rotated(op, k, shape, cos, sin)
        mixed = op.Attention(query, key, heads(op, v, shape), _outputs=["mixed"])
        return op.Reshape(op.Transpose(mixed, perm=[0, 2, 1, 3]), flat)

    def fits(_: object, cos: ir.Value, sin: ir.Value, mixed: ir.Value, **__: Any) -> bool:
        node = mixed.producer()
        if node is None or any(attribute.value for attribute in node.attributes.values()):
            return False  # causal, scaled otherwise, or capped
        tables = (_array(cos), _array(sin)) if _is_constant(cos) and _is_constant(sin) else ()
        halves = [np.split(table, 2, axis=1) for table in tables]
        return len(halves) == 2 and all(np.array_equal(a, b) for a, b in halves)

    def replace(
        op: Builder,
        q: ir.Value,
        k: ir.Value,
        v: ir.Value,
        cos: ir.Value,
        sin: ir.Value,
        shape: ir.Value,
        **_: Any,
    ) -> Any:
        number = int(_array(shape)[2])
        caches = [
            _constant(model, f"{name}/{number}", np.ascontiguousarray(np.split(_array(t), 2, 1)[0]))
            for name, t in (("cos", cos), ("sin", sin))
        ]
        first = _constant(model, "first_position", np.zeros(1, np.int64))
        query, key = (
            op.RotaryEmbedding(x, first, *caches, _domain=CONTRIB, num_heads=number) for x in (q, k)
        )
        return op.Attention(query, key, v, q_num_heads=number, kv_num_heads=number)

    return _rewrite(model, match, replace, fits)


def fuse_silu(model: ir.Model) -> int:
    """Replace x * Sigmoid(x) by QuickGelu, which is that with a factor."""

    def match(op: Builder, x: Any) -> Any:
        return op.Mul(x, op.Sigmoid(x))

    def replace(op: Builder, x: Any) -> Any:
        return op.QuickGelu(x, _domain=CONTRIB, alpha=1.0)

    return _rewrite(model, match, replace)


def fuse_residual(model: ir.Model) -> int:
    """Replace the root of the mean of squares by ReduceL2, which is that of the sum."""

    def match(op: Builder, change: Any, two: Any, axes: Any, unsqueezed: Any) -> Any:
        root = op.Sqrt(op.ReduceMean(op.Pow(change, two), axes, keepdims=0))
        return op.Unsqueeze(root, unsqueezed)

    def fits(_: object, change: ir.Value, two: ir.Value, axes: ir.Value, **__: Any) -> bool:
        return (
            _is_constant(two)
            and float(_array(two)) == 2
            and _is_constant(axes)
            and _array(axes).tolist() == [1, 2]
            and change.shape is not None
        )

    def replace(op: Builder, change: Any, axes: Any, **_: Any) -> Any:
        assert change.shape is not None
        share = np.float32(1.0 / np.sqrt(math.prod(map(int, change.shape[1:]))))
        norm = op.ReduceL2(change, axes, keepdims=1)
        return op.Mul(norm, _constant(model, "root_mean", np.array(share)))

    return _rewrite(model, match, replace, fits)


def quantise(model: ir.Model, scales: Mapping[str, float]) -> int:
    """Replace each product with a weight by one of bytes: u8 inputs, s8 weights, float32 result.

    Products of one input and scale share its QuantizeLinear. Weights have 7 bits and a scale per
    column: see `hrm_train.network.quantisation`.

    Args:
        model: the step.
        scales: of the inputs, by the module that owns the weight.
    """
    zero = _constant(model, "zero_point", np.array(ZERO_POINT, np.uint8))
    levels: dict[tuple[ir.Value, str], ir.Value] = {}
    changed = 0
    for node in list(model.graph):
        if node.op_type != "MatMul" or not _is_constant(weight := _input(node, 1)):
            continue
        name = name_of(weight)
        owner = name.rpartition(".weight")[0]
        if owner not in scales:
            continue
        x = _input(node, 0)
        scale = _constant(model, f"{owner}.input_scale", np.array(scales[owner], np.float32))
        if (x, owner) not in levels:
            quantised = ir.node("QuantizeLinear", [x, scale, zero])
            model.graph.insert_before(node, quantised)
            levels[x, owner] = quantised.outputs[0]
        rows, columns = quantise_weight(torch.from_numpy(_array(weight).T.copy()))
        weight_scale = _constant(model, f"{name}.scale", columns.numpy())
        _set(weight, np.ascontiguousarray(rows.numpy().T.astype(np.int8)))
        product = ir.node(
            "MatMulIntegerToFloat",
            [levels[x, owner], weight, scale, weight_scale, zero],
            domain=CONTRIB,
        )
        model.graph.insert_before(node, product)
        _hand_over(node.outputs[0], product.outputs[0])
        model.graph.remove(node, safe=True)
        changed += 1
    return changed


def matrices(model: ir.Model) -> list[str]:
    """The names of the matrices of weights that are stored as float32."""
    return [
        name
        for name, value in model.graph.initializers.items()
        if "." in name and value.dtype == ir.DataType.FLOAT and _array(value).ndim >= 2
    ]


def store_half(model: ir.Model) -> int:
    """Store matrices of weights as float16, each with a Cast that onnxruntime folds at load.

    Raises:
        PassFailed: a weight is too large for float16.
    """
    found = matrices(model)
    casts = []
    for name in found:
        value = model.graph.initializers[name]
        array = _array(value)
        if np.abs(array).max() > np.finfo(np.float16).max:
            raise PassFailed(
                f"{name}: expected weights float16 can hold, found {np.abs(array).max()}"
            )
        half = _constant(model, f"{name}.half", array.astype(np.float16))
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT}, name=f"{name}/Cast")
        _hand_over(value, cast.outputs[0])
        del model.graph.initializers[name]
        casts.append(cast)
    model.graph.insert_before(model.graph[0], casts)
    return len(found)


def _rewrite(
    model: ir.Model,
    match: Callable[..., object],
    replace: Callable[..., object],
    fits: Callable[..., bool] | None = None,
) -> int:
    count: int = RewriteRule(match, replace, fits).apply_to_model(model)
    return count


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _producer(node: ir.Node, index: int, op_type: str) -> ir.Node | None:
    """The node that makes an input, where it is of that kind and made for nobody else."""
    producer = _input(node, index).producer()
    if producer is None or producer.op_type != op_type or not _once(producer.outputs[0]):
        return None
    return producer


def _once(value: ir.Value | None) -> bool:
    return value is not None and len(value.uses()) == 1


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _array(value: ir.Value) -> npt.NDArray[np.float32]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _last(value: ir.Value) -> int | None:
    """The size of the last axis, where it is known."""
    size = value.shape[-1] if value.shape is not None else None
    return size if isinstance(size, int) else None


def _constant(model: ir.Model, name: str, array: Array) -> ir.Value:
    """The initializer `name`, made at first use."""
    if name not in model.graph.initializers:
        model.graph.register_initializer(initializer(name, ir.tensor(array, name=name)))
    return model.graph.initializers[name]


def _set(value: ir.Value, array: Array) -> None:
    tensor = ir.tensor(array, name=value.name)
    value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())
    value.type = ir.TensorType(tensor.dtype)


def _bypass(node: ir.Node, value: ir.Value) -> None:
    """Let everyone read `value` instead of what `node` made."""
    assert node.graph is not None
    node.outputs[0].replace_all_uses_with(value)
    node.graph.remove(node, safe=True)


def _hand_over(old: ir.Value, new: ir.Value) -> None:
    """Let `new` take the place and the name of `old`."""
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.replace_all_uses_with(new, replace_graph_outputs=True)
