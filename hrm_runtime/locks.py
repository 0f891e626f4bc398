"""Locks for what a signal may interrupt and a fork may copy.

A signal handler runs on top of whatever the main thread was doing, so what it calls may take a lock
that this thread holds; and a fork copies locks that other threads held, which are not there to
release them.
"""

import os
from threading import RLock
from typing import Any
from weakref import WeakSet

_made: "WeakSet[Any]" = WeakSet()


def reentrant() -> Any:
    """A lock that its thread may take again, and that is free in a forked process."""
    lock = RLock()
    _made.add(lock)
    return lock


def _free() -> None:
    for lock in list(_made):
        lock._at_fork_reinit()  # as logging and threading do with theirs


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free)
