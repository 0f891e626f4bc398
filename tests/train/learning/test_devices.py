"""Where training runs: what is asked of Fabric, and that the host's process stays as it was."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from exactly import assert_equal
from processes import DEADLINE_S, is_running, wait_for_the_end
from torch import Tensor

from hrm_train.errors import DeviceMissing
from hrm_train.learning import devices
from hrm_train.learning.devices import (
    HERE,
    Where,
    anywhere,
    computing_with,
    gathered,
    is_first_process,
    open_fabric,
    own_random_numbers,
    reproducible,
    summed,
)

# devices


def test_threads_are_the_host_s_again_however_the_work_ended() -> None:
    before = torch.get_num_threads()
    with computing_with(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(KeyboardInterrupt), computing_with(before + 2):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("where", "found", "message"),
    [
        (Where("cuda"), 0, "device: expected 1 CUDA device, found 0; ask for fewer or for the CPU"),
        (Where("cuda", devices=4), 2, "device: expected 4 CUDA devices, found 2; ask for fewer"),
        (Where("auto", devices=2), 1, "device: expected 2 CUDA devices, found 1; ask for fewer"),
        (Where("cuda", nodes=2), 0, "expected 1 CUDA device, .* install a torch built for CUDA"),
    ],
)
def test_fewer_gpus_than_asked_for_are_refused_with_both_numbers(
    where: Where, found: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    with pytest.raises(DeviceMissing, match=message):
        open_fabric(where)


@pytest.mark.parametrize(
    ("where", "found", "precision", "expected"),
    [
        (HERE, 0, "bf16", ("cpu", 1, 1, "auto", "32-true")),
        (HERE, 0, "fp32", ("cpu", 1, 1, "auto", "32-true")),
        (HERE, 3, "bf16", ("cuda", 1, 1, "auto", "bf16-mixed")),
        (HERE, 3, "fp32", ("cuda", 1, 1, "auto", "32-true")),
        (Where("cpu"), 3, "bf16", ("cpu", 1, 1, "auto", "32-true")),
        (Where("cpu", devices=2), 0, "bf16", ("cpu", 2, 1, "ddp", "32-true")),
        (Where("auto", devices=2), 0, "fp32", ("cpu", 2, 1, "ddp", "32-true")),
        (Where("cuda", devices=2), 2, "bf16", ("cuda", 2, 1, "ddp", "bf16-mixed")),
        (Where("cuda", devices=1, nodes=2), 1, "fp32", ("cuda", 1, 2, "ddp", "32-true")),
    ],
)
def test_processes_are_one_per_gpu_or_on_the_cpu_and_only_a_gpu_computes_in_less(
    where: Where,
    found: int,
    precision: str,
    expected: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}
    tied: list[int] = []
    monkeypatch.setattr(devices, "_end_together", tied.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.setattr(devices, "Fabric", lambda **named: asked.update(named) or "opened")
    assert open_fabric(where, precision) == "opened"
    assert asked == dict(
        zip(("accelerator", "devices", "num_nodes", "strategy", "precision"), expected, strict=True)
    )
    assert tied == [2] * (where.devices == 2)


def test_one_process_on_the_cpu_is_this_one() -> None:
    fabric = open_fabric(Where("cpu"), "bf16")
    assert (fabric.world_size, fabric.global_rank, fabric.device) == (1, 0, torch.device("cpu"))
    assert fabric.is_global_zero


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "3", "LOCAL_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),  # the first of the second machine
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_the_first_process_is_the_one_numbered_zero_by_every_launcher(
    environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first


# none outlives the first

LAUNCHES = """
import os, sys, time
from hrm_train.learning.devices import Where, open_fabric
fabric = open_fabric(Where("cpu", devices=2))
print(os.getpid(), flush=True)
time.sleep(1000 * fabric.local_rank)
fabric.launch()
print("launched", flush=True)
time.sleep(1000)
"""
"""The second process never comes to where the first waits for it."""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills as POSIX does")
def test_processes_end_with_the_first_one(tmp_path: Path) -> None:
    (tmp_path / "launches.py").write_text(LAUNCHES)
    command = [sys.executable, str(tmp_path / "launches.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert int(first.stdout.readline()) == first.pid
        second = int(first.stdout.readline())
        assert is_running(second)
        first.kill()
        wait_for_the_end(second)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> "SimpleQueue[int]":
    """Exit codes with which this process, one of several, would have ended."""
    codes: SimpleQueue[int] = SimpleQueue()
    monkeypatch.setattr(os, "_exit", codes.put)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "HRM_FIRST_PROCESS"):
        monkeypatch.setenv(name, "1")  # and as it was afterwards
        monkeypatch.delenv(name)
    return codes


def test_one_that_finds_its_first_process_gone_ends(
    ended: "SimpleQueue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HRM_FIRST_PROCESS", str(port))
    monkeypatch.setenv("LOCAL_RANK", "1")
    open_fabric(Where("cpu", devices=2))
    assert ended.get(timeout=DEADLINE_S) == 1


def test_one_that_is_connected_ends_when_the_connection_does(
    ended: "SimpleQueue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        monkeypatch.setenv("HRM_FIRST_PROCESS", str(first.getsockname()[1]))
        monkeypatch.setenv("LOCAL_RANK", "1")
        open_fabric(Where("cpu", devices=2))
        connection, _ = first.accept()
        assert ended.empty()
        connection.close()
        assert ended.get(timeout=DEADLINE_S) == 1


def test_the_first_tells_where_it_is_found_and_what_others_launch_is_left_to_them(
    ended: "SimpleQueue[int]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    threads = threading.active_count()
    open_fabric(Where("cpu", devices=2))
    assert threading.active_count() == threads
    monkeypatch.delenv("LOCAL_RANK")
    open_fabric(Where("cpu", devices=2))
    socket.create_connection(("127.0.0.1", int(os.environ["HRM_FIRST_PROCESS"]))).close()
    assert ended.empty()


# the host's process


def interrupted(expected: bool) -> AbstractContextManager[Any]:
    return pytest.raises(KeyboardInterrupt) if expected else nullcontext()


def stop(wanted: bool) -> None:
    if wanted:
        raise KeyboardInterrupt


@pytest.mark.parametrize("failing", [False, True])
def test_the_hosts_random_numbers_go_on_as_if_nothing_had_been_drawn(failing: bool) -> None:
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    with interrupted(failing), own_random_numbers(torch.device("cpu")):
        torch.manual_seed(9)
        torch.rand(100)
        stop(failing)
    assert_equal(torch.rand(5), expected)


@pytest.mark.parametrize(
    ("device", "forked"),
    [("cpu", []), ("cuda:1", [torch.device("cuda:1")])],
)
def test_of_the_gpus_only_that_trained_on_keeps_its_random_numbers(
    device: str, forked: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    fork = torch.random.fork_rng

    def recording(devices: list[torch.device]) -> Any:
        asked.extend(devices)
        return fork(devices=[])

    monkeypatch.setattr(torch.random, "fork_rng", recording)
    with own_random_numbers(torch.device(device)):
        assert asked == forked


@pytest.fixture
def flags() -> Any:
    """Gives the process its flags back."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize(
    ("before", "wanted", "inside"),
    [
        ((False, False), True, (True, False)),
        ((False, False), False, (False, False)),
        ((True, False), False, (True, False)),
        ((True, True), True, (True, False)),  # a warning would not be the same bits
        ((True, True), False, (True, True)),
    ],
)
def test_reproducible_algorithms_are_on_where_wanted_and_the_hosts_choice_returns(
    before: tuple[bool, bool], wanted: bool, inside: tuple[bool, bool], failing: bool
) -> None:
    def found() -> tuple[bool, bool]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    with interrupted(failing), reproducible(wanted):
        assert found() == inside
        stop(failing)
    assert found() == before


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize(("given", "expected"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_the_workspace_of_cublas_is_chosen_unless_the_host_has(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, "put back")  # so that monkeypatch restores what was there
    if given is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, given)
    with reproducible(True):
        assert os.environ[name] == expected


# several processes


def test_of_one_process_the_sum_and_the_rows_are_its_own() -> None:
    fabric = open_fabric(Where("cpu"))
    values = torch.tensor([1.5, -2.0], dtype=torch.float64)
    assert_equal(summed(fabric, values.clone()), values)
    rows = torch.arange(6).view(3, 2)
    assert_equal(gathered(fabric, rows), rows)


@pytest.mark.parametrize(
    "rows",
    [
        [torch.tensor([True, False, True]), torch.tensor([False, False, True])],
        [torch.tensor([3, 2**53 + 1]), torch.tensor([5, -7])],
        [torch.tensor([[1.25], [-0.5]]), torch.tensor([[3.0], [1e-30]])],
    ],
    ids=["flags", "counts", "states"],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_rows_are_put_in_order_of_process(
    rank: int, rows: list[Tensor]
) -> None:
    """The other process's part of the sum is put in by hand."""

    def all_reduce(every: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        assert not every[1 - rank].any()  # left to the other
        both = every.clone()
        both[1 - rank] += rows[1 - rank].to(every.dtype)
        return both

    fabric: Any = SimpleNamespace(
        world_size=2, global_rank=rank, device=torch.device("cpu"), all_reduce=all_reduce
    )
    found = gathered(fabric, rows[rank])
    assert found.dtype == rows[0].dtype
    assert_equal(found, torch.cat(rows))


def test_what_one_process_wants_all_hear() -> None:
    def reduced(values: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        return values + torch.tensor([0.0, 1.0, 1.0])  # what another one wants

    alone: Any = SimpleNamespace(world_size=1)
    several: Any = SimpleNamespace(world_size=2, device=torch.device("cpu"), all_reduce=reduced)
    assert anywhere(alone, True, False) == [True, False]
    assert anywhere(several, False, False, True) == [False, True, True]
