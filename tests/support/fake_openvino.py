"""Stand-ins for openvino and nncf: what they are told is written down, what they save is a text."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Entry:
    """An input of a network, dynamic in its batch."""

    def __init__(self, name: str, *sizes: int) -> None:
        self.any_name = name
        self.partial_shape: list[int] = [-1, *sizes]


class Network:
    """What is read, and what was done to it since."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.done: list[str] = []
        self.inputs = [Entry("features", 6, 54), Entry("account", 5)]

    def reshape(self, shapes: dict[str, list[int]]) -> None:
        self.done.append(f"reshaped {shapes}")


class Request:
    """A compiled network and its request: answers with what it is given. Cannot compute in f16."""

    def __init__(self, network: Network, device: str, options: dict[str, Any]) -> None:
        self.network, self.device, self.options = network, device, options

    def get_property(self, name: str) -> Any:
        found = "f32" if self.options[name] == "f16" else self.options[name]
        return SimpleNamespace(get_type_name=lambda: found)

    def create_infer_request(self) -> "Request":
        return self

    def infer(self, feeds: Any, **options: bool) -> tuple[Any, Any, Any]:
        return self, feeds, options


class Core:
    """Reads and compiles."""

    def read_model(self, path: str | Path) -> Network:
        return Network(Path(path).read_text(encoding="utf-8"))

    def compile_model(self, network: Network, device: str, options: dict[str, Any]) -> Request:
        return Request(network, device, options)


class Manager:
    """Runs the passes it knows."""

    def __init__(self) -> None:
        self._passes: list[str] = []

    def register_pass(self, one: str) -> None:
        self._passes.append(one)

    def run_passes(self, network: Network) -> None:
        network.done += self._passes


def save_model(network: Network, path: Path, compress_to_fp16: bool) -> None:
    assert not compress_to_fp16
    path.write_text("; ".join([network.source, *network.done]), encoding="utf-8")
    path.with_suffix(".bin").write_bytes(b"weights")


def quantize(network: Network, data: list[Any], **options: Any) -> Network:
    rows = {len(array) for window in data for array in window.values()}
    assert rows == {1}
    network.done.append(f"quantised on {len(data)} windows, {options}")
    return network


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both be imported, until the test ends."""
    openvino, passes, nncf = map(ModuleType, ("openvino", "openvino.passes", "nncf"))
    vars(openvino).update(Core=Core, save_model=save_model, passes=passes)
    vars(passes).update(Manager=Manager, ConstantFolding=lambda: "folded")
    vars(nncf).update(
        Dataset=list, quantize=quantize, ModelType=SimpleNamespace(TRANSFORMER="transformer")
    )
    for module in (openvino, passes, nncf):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", ModuleType("x"))
