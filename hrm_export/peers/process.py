"""The worker of a peer: the network as others would serve it.

    python -P PATH/peer_process.py KIND INPUTS CORE FILE [OPTION...]

It is run by its path, so that a process holds what its kind needs and not all of this package. A
peer opens sessions of its own here, with the options that come to mind first.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from hrm_runtime.artifact.contract import INPUTS
from hrm_runtime.errors import BadInput
from hrm_runtime.measure.turns import Opened, answer

if TYPE_CHECKING:
    from torch import nn

    from hrm_train.network.model import HierarchicalReasoningModel

Load = Callable[[], Opened]
Array = npt.NDArray[Any]
Levels = npt.NDArray[np.uint8]

ANSWERS: Final = ("action_type", "quantity", "value", "q_values")
"""What a graph by somebody else gives: no states, no residuals."""


def main(arguments: Sequence[str]) -> None:
    """Be the worker."""
    kind, inputs, core, *rest = arguments
    answer(partial(KINDS[kind], *rest), inputs, core)


def by_name(arrays: Sequence[Array]) -> dict[str, Array]:
    """Inputs as a graph takes them."""
    return dict(zip(INPUTS, arrays, strict=True))


def plain(model: "HierarchicalReasoningModel") -> "nn.Module":
    """`model` as one would write it who wants its four answers alone."""
    from torch import Tensor, nn

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, features: Tensor, account: Tensor, instrument: Tensor, timeframe: Tensor
        ) -> tuple[Tensor, ...]:
            x_BSD = model.encode(features, account, instrument, timeframe)
            zH_BSD, zL_BSD = model.initialize_states()
            for cycle in range(model.cycles):
                if cycle > 0:
                    zL_BSD = model.reset_l_module(zL_BSD)
                for _ in range(model.timesteps):
                    zL_BSD = model.low(zL_BSD, zH_BSD, x_BSD)
                zH_BSD = model.high(zH_BSD, zL_BSD)
            answers = model.decode(zH_BSD, account)
            return tuple(answers[name] for name in ANSWERS)

    return Plain().eval()


def torch_eager(weights: str) -> Load:
    """The module as it is."""
    import torch

    from hrm_train.network.model import HierarchicalReasoningModel

    torch.set_num_threads(1)

    def load() -> Opened:
        return Opened(_inferring(plain(HierarchicalReasoningModel.load_model(weights))))

    return load


def torch_compile(weights: str) -> Load:
    """The module compiled by inductor: for batch 1, and once more for all larger ones."""
    folder = Path(weights).parent
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")  # leaves nothing behind
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch
    from torch._inductor.cpp_builder import get_cpp_compiler

    from hrm_train.network.model import HierarchicalReasoningModel

    torch.set_num_threads(1)
    get_cpp_compiler()  # or an error that says what is missing

    def load() -> Opened:
        module = plain(HierarchicalReasoningModel.load_model(weights))
        return Opened(_inferring(torch.compile(module)))

    return load


def onnx(graph: str) -> Load:
    """A default session, but for its number of threads."""
    runtime = silent_onnxruntime()

    def load() -> Opened:
        session = runtime.InferenceSession(graph, _one_thread(runtime))
        return Opened(lambda *arrays: session.run(None, by_name(arrays)))

    return load


def products(graph: str, levels: str) -> Load:
    """Products alone, over levels that were prepared for batch 1."""
    runtime = silent_onnxruntime()
    with np.load(levels) as file:
        given: dict[str, Levels] = dict(file)

    def load() -> Opened:
        session = runtime.InferenceSession(graph, _one_thread(runtime))

        @cache
        def feeds(batch: int) -> dict[str, Levels]:
            return {name: np.repeat(level, batch, axis=0) for name, level in given.items()}

        return Opened(lambda features, *_: session.run(None, feeds(len(features))))

    return load


def openvino(graph: str, precision: str, batch: str) -> Load:
    """OpenVINO for latency, on one thread.

    Args:
        precision: of what is not quantised: "f32" or "bf16".
        batch: "any", or the one that it is compiled for.
    """
    runtime = silent_openvino()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
    }

    def load() -> Opened:
        core = runtime.Core()
        network = core.read_model(graph)
        if batch != "any":
            for entry in network.inputs:
                shape = entry.partial_shape
                shape[0] = int(batch)
                network.reshape({entry.any_name: shape})
        compiled = core.compile_model(network, "CPU", options)
        found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != precision:
            raise BadInput(f"expected this processor to compute in {precision}, found {found}")
        request = compiled.create_infer_request()
        infer = partial(request.infer, share_inputs=True, share_outputs=True)
        return Opened(lambda *arrays: infer(by_name(arrays)))

    return load


def executed(graph: bytes, feeds: Mapping[str, Array]) -> Counter[str]:
    """How often each operator really runs in one pass, by onnxruntime's own profile."""
    runtime = silent_onnxruntime()
    options = _one_thread(runtime)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "pass"))
        session = runtime.InferenceSession(graph, options)
        session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return Counter(
        event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")
    )


def silent_onnxruntime() -> Any:
    """onnxruntime, which does not report its use."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def silent_openvino() -> Any:
    """openvino; it and nncf report their use through a package that they do without."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # any import of it fails
    import openvino

    return openvino


def _one_thread(runtime: Any) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def _inferring(module: Callable[..., object]) -> Callable[..., object]:
    import torch

    @torch.inference_mode()
    def run(*arrays: Array) -> object:
        return module(*map(torch.from_numpy, arrays))

    return run


KINDS: Final[dict[str, Callable[..., Load]]] = {
    "torch-eager": torch_eager,
    "torch-compile": torch_compile,
    "onnx": onnx,
    "products": products,
    "openvino": openvino,
}


if __name__ == "__main__":
    main(sys.argv[1:])
