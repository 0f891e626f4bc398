"""How an engine ends: closed, dropped, with its process, or from within one of its own calls."""

import atexit
import logging
import sys
from threading import Thread
from types import FrameType

from hrm_runtime.journal.writer import Journal
from hrm_runtime.live.dispatch import Dispatcher
from hrm_runtime.live.guards import Guards
from hrm_runtime.live.jobs import Ask, Feed
from hrm_runtime.locks import reentrant
from hrm_runtime.log import log


class Ending:
    """Ends what an engine has started, once; knows nothing of the engine, which may be gone.

    A process that ends while a thread of it is in onnxruntime is aborted, and what its journal had
    not written is lost. So whatever was not closed is closed before the interpreter ends.
    """

    def __init__(
        self, guards: Guards, dispatcher: Dispatcher[Ask | Feed], journal: Journal | None
    ) -> None:
        self._guards = guards
        self._dispatcher = dispatcher
        self._journal = journal
        self._lock = reentrant()
        atexit.register(self.close)

    def close(self) -> None:
        """Answer what waits, then end the threads.

        Returns when they have ended; at once where the caller interrupted one of our own calls, as
        a signal handler may, or was called from one: that call has to go on first. In a forked
        process there is nothing to end.
        """
        if not self._dispatcher.ours:
            return
        self._guards.closed = True
        if _on_top_of_ours():
            Thread(target=self._end, name="hrm-ending").start()
        else:
            self._end()

    def dropped(self) -> None:
        """The engine is gone, and nobody has closed it."""
        if self._dispatcher.ours and not self._guards.closed:
            log(logging.WARNING, "engine dropped", why="it was not closed; it is now")
            self._guards.closed = True
            Thread(target=self._end, name="hrm-ending").start()

    def _end(self) -> None:
        with self._lock:
            self._dispatcher.close()
            if self._journal is not None:
                self._journal.close()
        atexit.unregister(self.close)


def _on_top_of_ours() -> bool:
    """Whether below the present call, and whoever made it, another call of ours is under way."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _ours(frame):
        frame = frame.f_back
    while frame is not None and not _ours(frame):
        frame = frame.f_back
    return frame is not None


def _ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("hrm_runtime.")
