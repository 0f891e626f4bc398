"""What takes long to make, made once for a whole run of the tests, however many workers it has."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The path called `name` that `make` wrote, the first time anybody asked; nobody changes it.

    Args:
        make: gets the path, at which there is nothing yet, and writes a file or a folder there.
    """
    from filelock import FileLock  # what has only what production has needs none of this

    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a folder in that of the run; alone it is the run's
        root = root.parent
    place, made = root / "once" / name, root / "once" / f"{name}.made"
    place.parent.mkdir(exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not made.exists():
            shutil.rmtree(place, ignore_errors=True)  # of a worker that ended in the middle
            make(place)
            made.touch()
    return place
