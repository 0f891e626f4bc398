"""Several processes train what one does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed
import pytest
import torch

Found = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What one process finds: this one."""
    out = tmp_path_factory.mktemp("one") / "found.pt"
    distributed.main(1, out)
    return read(out)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two find together."""
    out = tmp_path_factory.mktemp("two") / "found.pt"
    command = [sys.executable, "-W", "error", distributed.__file__, "2", str(out)]
    subprocess.run(command, check=True)
    return read(out)


def read(path: Path) -> Found:
    found: Found = torch.load(path)
    return found


@pytest.mark.parametrize("least", distributed.LEAST, ids=["fixed segments", "halting"])
def test_two_processes_equal_one_on_the_same_global_batches(
    least: int, one: Found, two: Found
) -> None:
    assert len(one[least]["losses"]) == distributed.STEPS
    torch.testing.assert_close(two[least], one[least], rtol=0, atol=1e-9)
    assert any(name.startswith("average/") for name in one[least]["state"])


def test_what_they_compute_depends_on_the_halting(one: Found) -> None:
    assert one[3]["losses"] != one[1]["losses"]
