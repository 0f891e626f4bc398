"""What others answer is what torch answers, and each is opened as is said."""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import fake_openvino
import numpy as np
import pytest
import torch
from synthetic import SMALL

from hrm_export.peers import process as peer_process
from hrm_export.peers.bench import INPUTS_FILE, WEIGHTS, _make_plain
from hrm_export.peers.process import ANSWERS, plain
from hrm_export.proof.inputs import Inputs
from hrm_runtime import BadInput
from hrm_runtime.artifact.contract import INPUTS
from hrm_runtime.measure.turns import Worker, write_inputs
from hrm_train.learning.checkpoint import Checkpoint
from hrm_train.network.model import HierarchicalReasoningModel
from hrm_train.settings import parse_settings

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(
    checkpoint: Checkpoint, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Weights and inputs, as makers find them."""
    path = tmp_path_factory.mktemp("peers")
    checkpoint.model.save_model(path / WEIGHTS)
    write_inputs(path / INPUTS_FILE, inputs.arrays)
    return path


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, inputs: Inputs) -> dict[str, np.ndarray]:
    """What the model itself answers."""
    return answers_of(checkpoint.model, inputs)


def answers_of(model: HierarchicalReasoningModel, inputs: Inputs) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        outputs, _ = model(*map(torch.from_numpy, inputs.arrays))
    return {name: outputs[name].numpy() for name in ANSWERS}


def assert_close(found: Any, expected: dict[str, np.ndarray]) -> None:
    for output, (name, reference) in zip(found, expected.items(), strict=True):
        np.testing.assert_allclose(output, reference, TOLERANCE, TOLERANCE, err_msg=name)


def test_plain_is_the_model_without_what_others_do_not_ask_for(
    checkpoint: Checkpoint, inputs: Inputs, expected: dict[str, np.ndarray]
) -> None:
    with torch.inference_mode():
        found = plain(checkpoint.model)(*map(torch.from_numpy, inputs.arrays))
    for output, reference in zip(found, expected.values(), strict=True):
        assert torch.equal(output, torch.from_numpy(reference))


@pytest.fixture
def one_thread() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_eager_torch_answers_as_the_model_does(
    folder: Path, inputs: Inputs, expected: dict[str, np.ndarray]
) -> None:
    found: Any = peer_process.torch_eager(str(folder / WEIGHTS))().run(*inputs.arrays)
    assert torch.get_num_threads() == 1
    assert not any(output.requires_grad for output in found)
    assert_close(found, expected)


@pytest.mark.usefixtures("one_thread")
def test_compiled_torch_is_the_same_module_compiled_beside_its_weights(
    folder: Path,
    inputs: Inputs,
    expected: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[Any] = []
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "")  # so that they are put back
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "c++")
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    found = peer_process.torch_compile(str(folder / WEIGHTS))().run(*inputs.arrays)
    assert_close(found, expected)
    assert len(compiled) == 1
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
    assert os.environ["TORCHINDUCTOR_COMPILE_THREADS"] == "1"


def test_without_a_compiler_torch_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(RuntimeError, match=r"No working C\+\+ compiler found"):
        peer_process.torch_compile(str(folder / WEIGHTS))


@pytest.mark.filterwarnings("ignore")  # torch's about its own exporter
@pytest.mark.parametrize(("opset", "cycles", "timesteps"), [(20, 2, 1), (23, 1, 2)])
def test_a_plain_graph_answers_as_torch_does(
    opset: int, cycles: int, timesteps: int, checkpoint: Checkpoint, inputs: Inputs, tmp_path: Path
) -> None:
    import onnx

    document = copy.deepcopy(SMALL)
    hierarchical = {"N_cycles": cycles, "T_timesteps": timesteps}
    document["hierarchical_reasoning_model"]["hierarchical"] = hierarchical
    model = HierarchicalReasoningModel(parse_settings(document)).eval()
    model.load_strict(checkpoint.model.state_dict(), "checkpoint")
    model.save_model(tmp_path / WEIGHTS)
    write_inputs(tmp_path / INPUTS_FILE, inputs.arrays)
    expected = answers_of(model, inputs)
    _make_plain(tmp_path, tmp_path, opset)
    path = tmp_path / f"plain-{opset}.onnx"
    graph = onnx.load(path)
    assert [entry.version for entry in graph.opset_import if not entry.domain] == [opset]
    assert tuple(entry.name for entry in graph.graph.input) == INPUTS
    assert tuple(entry.name for entry in graph.graph.output) == ANSWERS
    opened = peer_process.onnx(str(path))()
    assert_close(opened.run(*inputs.arrays), expected)
    first = opened.run(*(array[:1] for array in inputs.arrays))
    assert_close(first, {name: output[:1] for name, output in expected.items()})


@pytest.mark.parametrize(
    ("batch", "done"),
    [
        ("any", []),
        ("1", ["reshaped {'features': [1, 6, 54]}", "reshaped {'account': [1, 5]}"]),
    ],
)
def test_openvino_is_asked_for_latency_on_one_thread(
    batch: str, done: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_openvino.install(monkeypatch)
    (tmp_path / "network.xml").write_text("a network")
    opened = peer_process.openvino(str(tmp_path / "network.xml"), "bf16", batch)()
    found: Any = opened.run("f", "a", "i", "t")
    request, feeds, options = found
    assert (request.network.source, request.network.done) == ("a network", done)
    assert (request.device, request.options) == (
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16",
        },
    )
    assert feeds == {"features": "f", "account": "a", "instrument": "i", "timeframe": "t"}
    assert options == {"share_inputs": True, "share_outputs": True}


def test_a_processor_that_lacks_a_precision_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_openvino.install(monkeypatch)
    (tmp_path / "network.xml").write_text("a network")
    with pytest.raises(BadInput, match="expected this processor to compute in f16, found f32"):
        peer_process.openvino(str(tmp_path / "network.xml"), "f16", "any")()


def test_nobody_is_told_that_openvino_or_onnxruntime_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_openvino.install(monkeypatch)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    peer_process.silent_openvino()
    with pytest.raises(ModuleNotFoundError, match="openvino_telemetry"):
        import openvino_telemetry  # noqa: F401
    peer_process.silent_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_command_line_names_a_kind_its_inputs_and_its_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(peer_process, "answer", lambda *arguments: given.append(arguments))
    peer_process.main(["openvino", "inputs.npz", "1", "network.xml", "f32", "any"])
    ((prepare, inputs, core),) = given
    assert (prepare.func, prepare.args) == (peer_process.openvino, ("network.xml", "f32", "any"))
    assert (inputs, core) == ("inputs.npz", "1")


def test_a_worker_holds_what_its_kind_needs_and_not_this_package(
    folder: Path, artifact_folder: Path
) -> None:
    program = """
import runpy, sys
from hrm_runtime.measure import turns
def answer(prepare, *_):
    prepare()()
    names = ("torch", "onnx", "talib", "hrm_export", "hrm_train", "onnxruntime")
    print('{"held": %s}' % str([n for n in names if n in sys.modules]).replace("'", '"'))
turns.answer = answer
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    graph = str(artifact_folder / "model.onnx")
    arguments = ("onnx", str(folder / INPUTS_FILE), "", graph)
    with Worker("-c", program, peer_process.__file__, *arguments) as worker:
        assert worker.listen() == {"held": ["onnxruntime"]}
    assert "hrm_export" in sys.modules
