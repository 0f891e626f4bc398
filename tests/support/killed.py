"""Train, killed again and again: `python killed.py SETTINGS TENSORS REFERENCE FOLDER KILLS SEED`.

Children are forked from a process that has loaded everything, so that a kill hits the work and not
the imports. After `KILLS` kills the run is resumed to its end. A run that ends before is compared
with the reference too, and a new one is begun.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from hrm_train import load_settings, train


def main(settings: str, tensors: str, reference: str, out: str, kills: str, seed: str) -> None:
    """Print how many kills there were and at which steps the runs went on."""
    moments = random.Random(int(seed))  # noqa: S311, no secret
    folder, killed, ended = Path(out), 0, 0
    while killed < int(kills):
        child = os.fork()
        if child == 0:
            train(load_settings(settings), tensors, folder, resume=True)
            os._exit(0)
        time.sleep(moments.uniform(0.0, 0.6))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
        elif status != 0:
            sys.exit(f"a resumed run failed with status {status}")
        else:
            require_equal(folder, Path(reference))
            shutil.rmtree(folder)
            ended += 1
    train(load_settings(settings), tensors, folder, resume=True)
    require_equal(folder, Path(reference))
    print(f"{killed} kills, {ended} runs ended before")


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
