import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from live import SAFETY_S

from hrm_runtime import BadInput, ContractInvalid, InferenceFailed
from hrm_runtime.artifact.contract import MODEL
from hrm_runtime.artifact.session import Session, Stop


@pytest.fixture(scope="module")
def content(artifact: Path) -> bytes:
    return (artifact / MODEL).read_bytes()


def feeds(seed: int = 0, batch: int = 3) -> dict[str, Any]:
    """Inputs of the frozen graph."""
    rng = np.random.default_rng(seed)
    return {
        "features": rng.standard_normal((batch, 6, 54), dtype=np.float32),
        "account": rng.standard_normal((batch, 5), dtype=np.float32),
        "instrument": rng.integers(0, 3, batch),
        "timeframe": rng.integers(0, 3, batch),
    }


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Bit for bit."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


def test_names_types_and_shapes_are_those_of_the_graph(content: bytes) -> None:
    session = Session(content)
    assert session.inputs() == {
        "features": ("tensor(float)", ("B", 6, 54)),
        "account": ("tensor(float)", ("B", 5)),
        "instrument": ("tensor(int64)", ("B",)),
        "timeframe": ("tensor(int64)", ("B",)),
    }
    assert {name: shape[1:] for name, (_, shape) in session.optional_inputs().items()} == {
        "z_H": (4, 16),
        "z_L": (4, 8),
    }
    assert session.outputs().keys() == session.run(feeds()).keys()


def test_outputs_belong_to_the_caller(content: bytes) -> None:
    session = Session(content)
    first = session.run(feeds())
    kept = {name: array.copy() for name, array in first.items()}
    session.run(feeds(seed=1))
    assert_equal(first, kept)


@pytest.mark.parametrize("threads", [0, -1])
def test_a_session_needs_a_thread(content: bytes, threads: int) -> None:
    with pytest.raises(BadInput, match=f"threads: expected 1 to 1024, found {threads}"):
        Session(content, threads)


def test_two_threads_compute_the_same(content: bytes) -> None:
    assert_equal(Session(content, threads=2).run(feeds()), Session(content).run(feeds()))


def test_concurrent_calls_equal_sequential_ones(content: bytes) -> None:
    session = Session(content)
    inputs = [feeds(seed, batch=1 + seed % 4) for seed in range(60)]
    expected = [session.run(one) for one in inputs]
    with ThreadPoolExecutor(max_workers=2) as pool:
        for found, alone in zip(pool.map(session.run, inputs), expected, strict=True):
            assert_equal(found, alone)


def test_an_environment_that_lets_models_configure_the_session_is_refused(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    with pytest.raises(BadInput, match=r"ORT_LOAD_CONFIG_FROM_MODEL is set: .* unset it"):
        Session(content)


def test_an_environment_that_says_no_to_that_is_fine(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "0")
    assert_equal(Session(content).run(feeds()), Session(content).run(feeds()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not a model",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"MatMul", b"MutMal"),
    ],
    ids=["empty", "text", "half", "unknown operator"],
)
def test_what_is_not_a_graph_is_refused(content: bytes, damage: Any) -> None:
    with pytest.raises(
        ContractInvalid, match=r"^model\.onnx: onnxruntime refuses it: .*ONNXRuntime"
    ):
        Session(damage(content))


def protobuf(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of small integers and short strings."""
    return b"".join(
        bytes([number << 3, value])
        if isinstance(value, int)
        else bytes([number << 3 | 2]) + length_of(value) + value
        for number, value in fields
    )


def length_of(value: bytes) -> bytes:
    """As protobuf writes it, up to 16383."""
    size = len(value)
    return bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])


def product_with(*where_w_is: tuple[int, int | bytes]) -> bytes:
    """The ONNX graph y = x @ w, with w float32 [2, 2]; `where_w_is`: fields of its TensorProto."""
    float32, shape = (1, 1), (2, protobuf((1, protobuf((1, 1))), (1, protobuf((1, 2)))))
    matrix = (2, protobuf((1, protobuf(float32, shape))))
    graph = protobuf(
        (1, protobuf((1, b"x"), (1, b"w"), (2, b"y"), (4, b"MatMul"))),
        (2, b"graph"),
        (5, protobuf((1, 2), (1, 2), (2, 1), (8, b"w"), *where_w_is)),
        (11, protobuf((1, b"x"), matrix)),
        (12, protobuf((1, b"y"), matrix)),
    )
    ir_version, opset = (1, 10), (8, protobuf((2, 21)))
    return protobuf(ir_version, (7, graph), opset)


W = np.array([[1, 2], [3, 4]], dtype=np.float32)


def test_weights_inside_the_hashed_bytes_are_used() -> None:
    session = Session(product_with((9, W.tobytes())))
    x = np.array([[10, 1]], dtype=np.float32)
    assert_equal(session.run({"x": x}), {"y": x @ W})


def test_weights_outside_the_hashed_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    monkeypatch.chdir(tmp_path)
    external, place = (14, 1), (13, protobuf((1, b"location"), (2, b"w.bin")))
    with pytest.raises(ContractInvalid, match="External data path does not exist"):
        Session(product_with(place, external))


def test_a_failing_run_is_an_inference_failure(content: bytes) -> None:
    beyond = {**feeds(), "instrument": np.array([0, 1, 10_000])}
    with pytest.raises(InferenceFailed, match=r"onnxruntime failed while running.*(?s:.*)10000"):
        Session(content).run(beyond)


def test_importing_turns_telemetry_off_and_changes_nothing_else() -> None:
    assert _environment_after_import({}) == ({}, {"ORT_DISABLE_TELEMETRY": "1"})


@pytest.mark.parametrize("value", ["0", "1", ""])
def test_what_the_host_has_set_is_respected(value: str) -> None:
    assert _environment_after_import({"ORT_DISABLE_TELEMETRY": value}) == ({}, {})


def _environment_after_import(given: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What a fresh process's environment lost and gained by importing the module."""
    program = (
        "import json, os\n"
        "before = dict(os.environ)\n"
        "import hrm_runtime.artifact.session\n"
        "after = dict(os.environ)\n"
        "lost = dict(before.items() - after.items())\n"
        "print(json.dumps([lost, dict(after.items() - before.items())]))\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    lost, gained = json.loads(done.stdout)
    return lost, gained


# what stops a pass


def test_a_stop_that_is_not_set_changes_nothing(content: bytes) -> None:
    session, stop = Session(content), Stop()
    assert_equal(session.run(feeds(), stop), session.run(feeds()))
    assert_equal(session.run(feeds(seed=1), stop), session.run(feeds(seed=1)))


def test_a_stop_that_is_set_ends_every_pass_with_it_and_no_other(content: bytes) -> None:
    session, stop, other = Session(content), Stop(), Stop()
    expected = session.run(feeds())
    stop.set()
    for _ in range(2):
        with pytest.raises(
            InferenceFailed, match=r"^onnxruntime failed while running the graph: .*terminate"
        ):
            session.run(feeds(), stop)
        assert_equal(session.run(feeds(), other), expected)
        assert_equal(session.run(feeds()), expected)


def endless() -> bytes:
    """The ONNX graph of a loop that adds x float32 [1] to itself and never ends."""

    def value(name: bytes, element: int, *sizes: int) -> bytes:
        shape = protobuf(*((1, protobuf((1, size))) for size in sizes))
        tensor = protobuf((1, element), (2, shape))
        return protobuf((1, name), (2, protobuf((1, tensor))))

    floats, integers, truth = 1, 7, 9
    body = protobuf(
        (1, protobuf((1, b"on"), (2, b"still"), (4, b"Identity"))),
        (1, protobuf((1, b"a"), (1, b"a"), (2, b"b"), (4, b"Add"))),
        (2, b"body"),
        (11, value(b"number", integers)),
        (11, value(b"on", truth)),
        (11, value(b"a", floats, 1)),
        (12, value(b"still", truth)),
        (12, value(b"b", floats, 1)),
    )
    attribute = protobuf((1, b"body"), (6, body)) + b"\xa0\x01\x05"  # field 20: a graph
    loop = protobuf((1, b""), (1, b""), (1, b"x"), (2, b"y"), (4, b"Loop"), (5, attribute))
    graph = protobuf(
        (1, loop), (2, b"graph"), (11, value(b"x", floats, 1)), (12, value(b"y", floats, 1))
    )
    return protobuf((1, 10), (8, protobuf((2, 21))), (7, graph))


def test_a_pass_that_would_never_end_is_stopped_from_another_thread() -> None:
    session, stop, begun = Session(endless()), Stop(), Event()
    raised: list[InferenceFailed] = []

    def run() -> None:
        begun.set()
        try:
            session.run({"x": np.ones(1, np.float32)}, stop)
        except InferenceFailed as error:
            raised.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    assert begun.wait(SAFETY_S)
    stop.set()
    thread.join(SAFETY_S)
    assert not thread.is_alive()
    (error,) = raised
    assert "terminate" in str(error)
