"""What keeps a live engine from trading: the kill switch, the breaker, and its own end."""

import logging
import os
from pathlib import Path

from hrm_runtime.artifact.decision import Reason
from hrm_runtime.errors import BadInput, Untrusted
from hrm_runtime.journal.events import Control
from hrm_runtime.live.recorder import Recorder
from hrm_runtime.locks import reentrant
from hrm_runtime.log import log


class KillSwitch:
    """Stops all trading, by a call or by a file that appears; stays so until it is released.

    Args:
        file: its existence pulls the switch. Its folder must exist.

    Attributes:
        why: it is pulled, as far as is known; None where it is not.

    Raises:
        BadInput: the file's folder does not exist.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        self._file = None if file is None else Path(file).absolute()
        if self._file is not None and not os.path.isdir(self._file.parent):
            raise BadInput(
                f"kill_file: expected a file in a folder that exists, found {self._file}"
            )
        self.why: str | None = None

    def pull(self, why: str) -> None:
        """Stop all trading; `why` is what health and logs say."""
        self.why = why

    def pulled(self) -> str | None:
        """Why the switch is pulled; None where it is not. Looks for the file."""
        if self.why is None and (seen := self._seen()) is not None:
            self.why = seen  # and never None, that might undo what was pulled meanwhile
        return self.why

    def release(self) -> None:
        """Allow trading again.

        Raises:
            BadInput: the file is still there.
        """
        seen = self._seen()
        if seen is not None:
            raise BadInput(f"kill switch: expected the file to be removed first: {seen}")
        self.why = None

    def _seen(self) -> str | None:
        if self._file is None:
            return None
        try:
            self._file.lstat()
        except FileNotFoundError:
            gone = not os.path.isdir(self._file.parent)
            return f"the folder of {self._file} is gone" if gone else None
        except (OSError, ValueError) as error:
            return f"the kill file cannot be looked for: {error}"
        return f"found {self._file}"


class Breaker:
    """Opens after so many failures in a row and stays open until it is closed.

    Args:
        limit: failures in a row that open it.

    Attributes:
        failures: in a row so far.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.failures = 0
        self._open = False
        self._lock = reentrant()

    @property
    def open(self) -> bool:
        """Whether it has opened."""
        return self._open

    def failed(self) -> bool:
        """Count a failure; whether this one opened the breaker."""
        with self._lock:
            self.failures += 1
            opened = self.failures >= self.limit and not self._open
            self._open = self._open or opened
            return opened

    def succeeded(self) -> None:
        """Count a success: failures start from 0 again. An open breaker stays open."""
        with self._lock:
            self.failures = 0

    def close(self) -> None:
        """Close it and forget the failures."""
        with self._lock:
            self.failures = 0
            self._open = False


class Guards:
    """What keeps one engine from trading; whoever pulls or releases it is recorded and logged.

    Attributes:
        kill_switch, breaker: its own.
        closed: it has ended, or is about to; what fails then is nobody's failure.
    """

    def __init__(self, kill_switch: KillSwitch, breaker: Breaker, recorder: Recorder) -> None:
        self.kill_switch = kill_switch
        self.breaker = breaker
        self.closed = False
        self._recorder = recorder

    def kill(self, why: str) -> None:
        """Stop all trading."""
        self.kill_switch.pull(str(why))
        self._recorder.stopped(Control.KILLED, str(why))
        log(logging.CRITICAL, "killed", why=why)

    def revive(self) -> None:
        """Undo a kill.

        Raises:
            BadInput: the kill file is still there.
        """
        self.kill_switch.release()
        self._recorder.undone(Control.KILLED, Control.REVIVED)
        log(logging.CRITICAL, "revived")

    def opened(self, why: str) -> None:
        """Tell that the breaker has opened."""
        self._recorder.stopped(Control.BREAKER_OPENED, why)
        log(logging.CRITICAL, "breaker opened", failures=self.breaker.limit)

    def close_breaker(self) -> None:
        """Forget the failures."""
        self.breaker.close()
        self._recorder.undone(Control.BREAKER_OPENED, Control.BREAKER_CLOSED)
        log(logging.CRITICAL, "breaker closed")

    def barred(self, look: bool = True) -> Untrusted | None:
        """Why nothing may be traded; with `look` the kill file is looked for."""
        killed = self.kill_switch.pulled() if look else self.kill_switch.why
        if killed is not None:
            return Untrusted(Reason.KILLED, f"killed: {killed}; revive() allows trading again")
        if self.breaker.open:
            return Untrusted(
                Reason.BREAKER,
                f"{self.breaker.limit} failures in a row; close_breaker() allows trading again",
            )
        return None
