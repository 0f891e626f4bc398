"""Graphs that are wrong on purpose: export finds them out and writes nothing."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from artifact_copy import ArtifactCopy
from onnx import numpy_helper
from remembered import Remembered

from hrm_export import export
from hrm_export.errors import ParityFailed
from hrm_export.exporter import MOST_WINDOWS
from hrm_export.graph import build, passes
from hrm_export.graph.build import FUSION, Built
from hrm_export.proof.inputs import bars_windows
from hrm_runtime import SelfTestFailed, load
from hrm_runtime.artifact.contract import MODEL, Precision
from hrm_train.data.windows import Windows
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.model import HierarchicalReasoningModel

Array = npt.NDArray[Any]
Weights = dict[str, onnx.TensorProto]
Tamper = Callable[[Weights], object]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def array_of(weights: Weights, name: str) -> Array:
    return numpy_helper.to_array(weights[name])


def put(weights: Weights, name: str, array: Array) -> None:
    weights[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def swap_two_weights(weights: Weights) -> None:
    """Of the two blocks of L; with their scales, where they have some."""
    for suffix in ("", ".scale"):
        one, other = (f"l_module.blocks.{block}.mlp.down.weight{suffix}" for block in (0, 1))
        if one in weights:
            first, second = array_of(weights, one), array_of(weights, other)
            put(weights, one, second)
            put(weights, other, first)


def transpose_a_matrix(weights: Weights) -> None:
    name = "h_module.blocks.0.attention.out.weight"
    put(weights, name, array_of(weights, name).T)


def shift_a_feature_mean(weights: Weights) -> None:
    mean, std = (array_of(weights, f"input_network.features.{name}") for name in ("mean", "std"))
    shifted = mean.copy()
    shifted[12] += std[12]
    put(weights, "input_network.features.mean", shifted)


def reorder_the_actions(weights: Weights) -> None:
    name = "policy_head.logits.weight"
    put(weights, name, array_of(weights, name)[[1, 0, 3, 2, 4]])


TAMPERED: list[Tamper] = [
    swap_two_weights, transpose_a_matrix, shift_a_feature_mean, reorder_the_actions,
]  # fmt: skip


def tampered(graph: bytes, tamper: Tamper) -> bytes:
    model = onnx.load_model_from_string(graph)
    tamper({entry.name: entry for entry in model.graph.initializer})
    content: bytes = model.SerializeToString(deterministic=True)
    assert content != graph
    return content


def write(checkpoint: Path, precision: Precision, out: Path) -> Path:
    return export(
        checkpoint, out, precision=precision, calibration=["x"] if precision == "int8" else []
    ).path


@pytest.fixture(scope="module")
def calibration(even: Checkpoint, bars_folder: Path) -> Windows:
    return bars_windows(even, [bars_folder], MOST_WINDOWS)[0]


@pytest.fixture(scope="module")
def artifacts(
    even_folder: Path,
    calibration: Windows,
    remembered: Remembered,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Precision, Path]:
    """What is right passes."""
    folder = tmp_path_factory.mktemp("right")
    with pytest.MonkeyPatch.context() as patch:
        remembered.install(patch)
        patch.setattr("hrm_export.exporter.bars_windows", lambda *_: (calibration, ()))
        return {each: write(even_folder, each, folder / each) for each in PRECISIONS}


Caught = Callable[[Precision], str]


@pytest.fixture
def caught(
    artifacts: dict[Precision, Path],
    even_folder: Path,
    calibration: Windows,
    remembered: Remembered,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Caught:
    """Export, which must fail and leave nothing; the message."""
    remembered.install(monkeypatch)
    monkeypatch.setattr("hrm_export.exporter.bars_windows", lambda *_: (calibration, ()))

    def failed(precision: Precision) -> str:
        with pytest.raises(ParityFailed, match="Nothing was written") as error:
            write(even_folder, precision, tmp_path / "artifact")
        assert list(tmp_path.iterdir()) == []
        return str(error.value)

    return failed


@pytest.mark.parametrize("tamper", TAMPERED)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_with_a_wrong_weight_is_caught(
    precision: Precision,
    tamper: Tamper,
    caught: Caught,
    remembered: Remembered,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(model: HierarchicalReasoningModel, wanted: Precision) -> Iterator[Built]:
        *others, last = remembered.stages(model, wanted)
        yield from others
        changed = onnx.load_model_from_string(tampered(last.to_bytes(), tamper))
        yield replace(last, model=ir.from_proto(changed))

    monkeypatch.setattr("hrm_export.exporter.stages", wrong)
    message = caught(precision)
    assert message.startswith("artifact differs from torch eager")


@pytest.mark.parametrize("tamper", TAMPERED)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_artifact_with_a_wrong_weight_is_not_loaded(
    precision: Precision, tamper: Tamper, artifacts: dict[Precision, Path], tmp_path: Path
) -> None:
    copy = ArtifactCopy(Path(shutil.copytree(artifacts[precision], tmp_path / "artifact")))
    copy.put(MODEL, tampered((copy.path / MODEL).read_bytes(), tamper))
    with pytest.raises(SelfTestFailed, match=r"^golden\.npz: "):
        load(copy.path)


# passes that do something wrong, as often as they should


def wrong_residual(model: ir.Model) -> int:
    """The root of the sum of squares, not of their mean."""
    count = passes.fuse_residual(model)
    constant = model.graph.initializers["root_mean"]
    constant.const_value = ir.tensor(np.array(1.0, np.float32), name="root_mean")
    return count


def wrong_silu(model: ir.Model) -> int:
    """The factor that makes QuickGelu what its name says."""
    count = passes.fuse_silu(model)
    for node in model.graph:
        if node.op_type == "QuickGelu":
            node.attributes["alpha"] = ir.AttrFloat32("alpha", 1.702)
    return count


def wrong_heads(model: ir.Model) -> int:
    """Keys of other heads."""
    count = passes.fuse_attention(model)
    for node in model.graph:
        if node.op_type == "Attention":
            query, key, value = node.inputs
            node.replace_input_with(0, key)
            node.replace_input_with(1, value)
            node.replace_input_with(2, query)
    return count


def wrong_parts(model: ir.Model) -> int:
    """The gate for what it lets through."""
    count = passes.split_products(model)
    products = [node for node in model.graph if node.op_type == "MatMul"]
    parts = {
        weight.name: product
        for product in products
        if (weight := product.inputs[1]) is not None and weight.name is not None
    }
    gates = [name for name in parts if "gate_up.weight[0:" in name]
    for gate in gates:
        block = gate.partition(".mlp")[0]
        (up,) = [name for name in parts if name.startswith(f"{block}.mlp.gate_up") and name != gate]
        one, other = parts[gate].inputs[1], parts[up].inputs[1]
        parts[gate].replace_input_with(1, other)
        parts[up].replace_input_with(1, one)
    return count


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "apply"),
    [
        ("fuse the residual", wrong_residual),
        ("fuse SiLU", wrong_silu),
        ("fuse rotation and attention", wrong_heads),
        ("split products instead of their results", wrong_parts),
    ],
)
def test_a_pass_that_does_something_else_is_caught(
    name: str,
    apply: Callable[[ir.Model], int],
    precision: Precision,
    caught: Caught,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = tuple(replace(each, apply=apply) if each.name == name else each for each in FUSION)
    assert changed != FUSION
    monkeypatch.setattr(build, "FUSION", changed)
    message = caught(precision)
    stage = "artifact" if precision == "fp32" else "fused"  # the first that is wrong
    assert message.startswith(f"{stage} differs from torch eager over")
    if name == "fuse the residual":
        assert "beyond tolerance: l_residual: " in message


@pytest.mark.parametrize("factor", [2.0, 0.5, 1.02])
def test_quantisers_with_scales_that_are_not_the_model_s_are_caught(
    factor: float, caught: Caught, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantisation = build.quantisation

    def wrong(scales: dict[str, float]) -> build.Pass:
        return quantisation({name: factor * scale for name, scale in scales.items()})

    monkeypatch.setattr(build, "quantisation", wrong)
    message = caught("int8")
    assert message.startswith("artifact differs from torch eager, quantised over")
