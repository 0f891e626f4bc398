"""Several processes train what one does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SUPPORT = Path(__file__).parents[1] / "support"


def steps(processes: int, least: int, folder: Path) -> dict[str, Any]:
    out = folder / f"{processes}.pt"
    subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            SUPPORT / "distributed.py",
            str(processes),
            out,
            str(least),
        ],
        check=True,
    )
    found: dict[str, Any] = torch.load(out)
    return found


@pytest.mark.parametrize("least", [3, 1], ids=["fixed segments", "halting"])
def test_two_processes_equal_one_on_the_same_global_batches(least: int, tmp_path: Path) -> None:
    one, two = (steps(processes, least, tmp_path) for processes in (1, 2))
    assert len(one["losses"]) == 20
    torch.testing.assert_close(two, one, rtol=0, atol=1e-9)
    assert any(name.startswith("average/") for name in one["state"])
