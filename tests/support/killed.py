"""Train, killed again and again: `python killed.py SETTINGS TENSORS FOLDER KILLS SEED`.

Children are forked from a process that has loaded everything, so that a kill hits the work and not
the imports. The first of them is left alone: what it leaves is the reference, and kills come at
moments of as long a time as it took. After `KILLS` kills the run is resumed to its end. A run that
ends before is compared with the reference too, and a new one is begun.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from hrm_train import load_settings, train


def main(settings: str, tensors: str, out: str, kills: str, seed: str) -> None:
    """Print how many kills there were, and how many runs ended before one."""
    moments = random.Random(int(seed))  # noqa: S311, no secret
    reference, folder, killed, ended = Path(out, "reference"), Path(out, "killed"), 0, 0
    begun = time.monotonic()
    require_success(waited(forked(settings, tensors, reference)))
    whole = time.monotonic() - begun
    while killed < int(kills):
        child = forked(settings, tensors, folder)
        time.sleep(moments.uniform(0.0, whole))
        os.kill(child, signal.SIGKILL)
        status = waited(child)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            require_success(status)
            require_equal(folder, reference)
            shutil.rmtree(folder)
            ended += 1
    require_success(waited(forked(settings, tensors, folder)))
    require_equal(folder, reference)
    print(f"{killed} kills, {ended} runs ended before")


def forked(settings: str, tensors: str, folder: Path) -> int:
    """A child that goes on with the training in the folder, and ends."""
    child = os.fork()
    if child == 0:
        train(load_settings(settings), tensors, folder, resume=True)
        os._exit(0)
    return child


def waited(child: int) -> int:
    """How it ended."""
    return os.waitpid(child, 0)[1]


def require_success(status: int) -> None:
    """Of a run that nobody killed."""
    if status != 0:
        sys.exit(f"a run failed with status {status}")


def require_equal(one: Path, other: Path) -> None:
    """Every file of the two folders, byte for byte."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    if names[0] != names[1]:
        sys.exit(f"expected the files {names[1]}, found {names[0]}")
    for name in names[0]:
        if (one / name).read_bytes() != (other / name).read_bytes():
            sys.exit(f"{name} differs from that of the run that was not killed")


if __name__ == "__main__":
    main(*sys.argv[1:])
