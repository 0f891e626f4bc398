"""Whether another process is still there."""

import os
import time
from pathlib import Path

DEADLINE_S = 60.0
"""Generous: only a process that does not end at all takes it."""


def is_running(pid: int) -> bool:
    """Whether there is such a process that is not a corpse nobody has buried yet."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):  # buried, perhaps just now
        return False


def wait_for_the_end(pid: int) -> None:
    """Poll until it has ended; fail where it does not."""
    deadline = time.monotonic() + DEADLINE_S
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is still running"
        time.sleep(0.01)
