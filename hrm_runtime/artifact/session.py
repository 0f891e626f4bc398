"""The one place that imports onnxruntime: a session with every option written down.

Importing this module sets `ORT_DISABLE_TELEMETRY=1` unless the host has set it: onnxruntime's
wheels report usage otherwise, and read the variable once, while being imported. Nothing else in
the host process is changed.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any, Final

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from hrm_runtime.errors import BadInput, ContractInvalid, InferenceFailed

_FAILURES: Final[tuple[type[Exception], ...]] = (
    _native.EPFail,
    _native.Fail,
    _native.InvalidArgument,
    _native.InvalidGraph,
    _native.InvalidProtobuf,
    _native.NotImplemented,
    _native.RuntimeException,
    RuntimeError,  # what a C++ exception without a status becomes
)
"""Everything a session raises by itself; these classes share no base but Exception."""

MOST_THREADS: Final = 1024
"""More than any one decision could use; a larger number is a mistake."""

_QUIET: Final = 3
"""Errors only: a warning for each optional input would be printed at every load."""

_SILENT: Final = 4
"""Not even errors: being stopped is one, which is raised and would be printed as well."""

_EXTERNAL_DATA: Final = "session.model_external_initializers_file_folder_path"
"""Where a graph may look for weights outside itself; otherwise the host's current directory."""

_settled: Final = Event()
"""Set once a session was opened."""

Signature = dict[str, tuple[str, tuple[int | str | None, ...]]]
"""Name to (onnxruntime type, shape); a symbolic dimension is a string."""


class Stop:
    """Stops passes of the graph from another thread, between two operators.

    Attributes:
        options: what onnxruntime gets with each pass that this may stop.
    """

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = _SILENT

    def set(self) -> None:
        """End the pass that runs with this, and every later one; it raises `InferenceFailed`."""
        self.options.terminate = True


class Session:
    """An onnxruntime CPU session over a model held in memory. Thread-safe.

    Weights come from `model` alone, external data is refused; no custom operators are registered.

    Args:
        model: the ONNX file's bytes.
        threads: CPU threads for one call; they do not spin between calls.

    Attributes:
        threads: as given.

    Raises:
        ContractInvalid: onnxruntime refuses the graph.
        BadInput: `threads` is not a count, or the environment lets models configure the session.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
            raise BadInput(f"threads: expected 1 to {MOST_THREADS}, found {threads!r}")
        if os.environ.get("ORT_LOAD_CONFIG_FROM_MODEL", "0") != "0":
            raise BadInput(
                "ORT_LOAD_CONFIG_FROM_MODEL is set: a model could change how it is run; unset it"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.use_deterministic_compute = True
        options.log_severity_level = _QUIET
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry(_EXTERNAL_DATA, os.devnull)
        open_ = partial(
            onnxruntime.InferenceSession, model, options, providers=["CPUExecutionProvider"]
        )
        try:
            self._session = open_() if _settled.is_set() else _first(open_)
        except _FAILURES as error:
            raise ContractInvalid(f"model.onnx: onnxruntime refuses it: {error}") from error
        self.threads = threads
        self._session._model_bytes = None  # kept to open it anew elsewhere; as large as the file
        self._outputs = [output.name for output in self._session.get_outputs()]

    def inputs(self) -> Signature:
        """The inputs that must be given."""
        return _signature(self._session.get_inputs())

    def optional_inputs(self) -> Signature:
        """The inputs that have a default inside the graph."""
        return _signature(self._session.get_overridable_initializers())

    def outputs(self) -> Signature:
        """The outputs, in order."""
        return _signature(self._session.get_outputs())

    def run(self, feeds: Mapping[str, Any], stop: Stop | None = None) -> dict[str, Any]:
        """One pass of the graph; every output by name, in arrays of its own.

        Args:
            feeds: inputs by name.
            stop: what may end it early.

        Raises:
            InferenceFailed: onnxruntime failed, or was stopped.
        """
        return self._run(feeds, stop.options if stop else None)

    def shrink(self, feeds: Mapping[str, Any]) -> None:
        """Run a pass and free the memory that passes of larger batches have taken.

        Raises:
            InferenceFailed: onnxruntime failed.
        """
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run(feeds, options)

    def _run(self, feeds: Mapping[str, Any], options: Any) -> dict[str, Any]:
        try:
            results = self._session.run(self._outputs, dict(feeds), options)
        except _FAILURES as error:
            raise InferenceFailed(f"onnxruntime failed while running the graph: {error}") from error
        return dict(zip(self._outputs, results, strict=True))


def _first(open_: Callable[[], Any]) -> Any:
    """Open the first session of the process in a thread of its own.

    It has its thread no longer flush denormals to zero, as the host may have asked of its own.
    """
    with ThreadPoolExecutor(max_workers=1) as apart:
        session = apart.submit(open_).result()
    _settled.set()
    return session


def _signature(entries: list[Any]) -> Signature:
    return {entry.name: (entry.type, tuple(entry.shape)) for entry in entries}
