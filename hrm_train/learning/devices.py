"""Where training runs: one process on a CPU or a GPU, or several of them through DDP."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, Final, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hrm_train.errors import DeviceMissing

Device = Literal["auto", "cpu", "cuda"]

_RANKS: Final = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Variables by which launchers number their processes."""


_FIRST: Final = "HRM_FIRST_PROCESS"
"""Variable that holds the port at which the processes of a machine find their first one."""


@dataclass(frozen=True)
class Where:
    """Devices to train on.

    Attributes:
        device: `auto` takes a GPU where there is one.
        devices: processes on each node, one per GPU; on a CPU they share its cores.
        nodes: machines, each started with the same command under torchrun.
    """

    device: Device = "auto"
    devices: int = 1
    nodes: int = 1


HERE: Final = Where()
"""One process."""


def open_fabric(where: Where, precision: str = "fp32") -> Fabric:
    """Processes to train on, not launched yet. Those that are launched end with this one.

    Args:
        precision: of products on a GPU, `fp32` or `bf16`; a CPU computes in fp32.

    Raises:
        DeviceMissing: fewer GPUs than asked for.
    """
    device = kind_of(where.device, where.devices)
    if where.devices > 1:
        _end_together(where.devices)
    return Fabric(
        accelerator=device,
        devices=where.devices,
        num_nodes=where.nodes,
        strategy="auto" if where.devices * where.nodes == 1 else "ddp",
        precision="bf16-mixed" if device == "cuda" and precision == "bf16" else "32-true",
    )


def _end_together(devices: int) -> None:
    """Tie the processes that the first one launches to it, so that none outlives it.

    Each holds a connection to it, which the system closes however the first one ends. Without it,
    one would wait for the others for half an hour, on a GPU at full speed.
    """
    if is_first_process():
        server = socket.create_server(("127.0.0.1", 0), backlog=devices)
        os.environ[_FIRST] = str(server.getsockname()[1])
        server.detach()  # open as long as this process is; nobody need accept
    elif _FIRST in os.environ:  # or torchrun has launched it, and looks after it
        Thread(target=_end_with_first, args=(int(os.environ[_FIRST]),), daemon=True).start()


def _end_with_first(port: int) -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)
    os._exit(1)  # at once: the main thread may be waiting in a library


def kind_of(device: Device, devices: int = 1) -> Literal["cpu", "cuda"]:
    """`device`, or what `auto` takes.

    Raises:
        DeviceMissing: fewer GPUs than `devices`.
    """
    found = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and not found):
        return "cpu"
    if found < devices:
        raise DeviceMissing(
            f"device: expected {devices} CUDA device{'s' * (devices > 1)}, found {found}; ask for "
            "fewer or for the CPU, or install a torch built for CUDA"
        )
    return "cuda"


def is_gpu(fabric: Fabric) -> bool:
    """Whether the processes run on GPUs."""
    return fabric.device.type == "cuda"


def is_first_process() -> bool:
    """Whether this is the process that speaks for all, as launchers number them."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Leave the host's random number generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Compute on a CPU with so many threads, and leave the host's number as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Have torch use algorithms that give the same bits every time, where `wanted`."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filling: Any = torch.utils.deterministic  # a module whose attribute is a property
    fill = filling.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(wanted or before, warn_only=warn_only and not wanted)
    filling.fill_uninitialized_memory = fill and not wanted  # nothing reads it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        filling.fill_uninitialized_memory = fill


def summed(fabric: Fabric, values: Tensor) -> Tensor:
    """`values`, each summed over all processes."""
    total = fabric.all_reduce(values, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def anywhere(fabric: Fabric, *own: bool) -> list[bool]:
    """For each of them, whether it holds in any process. All wait for all to ask."""
    if fabric.world_size == 1:
        return [*own]
    votes = torch.tensor(own, dtype=torch.float32, device=fabric.device)
    return [vote > 0 for vote in summed(fabric, votes).tolist()]


def gathered(fabric: Fabric, rows: Tensor) -> Tensor:
    """The rows of all processes, in order of process."""
    if fabric.world_size == 1:
        return rows
    kind = torch.uint8 if rows.dtype == torch.bool else rows.dtype
    shape = (fabric.world_size, *rows.shape)
    every = torch.zeros(shape, dtype=kind, device=fabric.device)
    every[fabric.global_rank] = rows
    return summed(fabric, every).flatten(0, 1).to(rows.dtype)
