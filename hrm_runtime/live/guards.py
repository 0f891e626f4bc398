"""What keeps a live engine from trading: the kill switch and the breaker."""

import os
from pathlib import Path
from threading import Lock

from hrm_runtime.errors import BadInput


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
        self._lock = Lock()

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
