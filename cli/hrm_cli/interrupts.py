"""Ctrl-C, and the signal by which clusters end a process.

Handlers belong to the whole process, so the command line installs them and the libraries do not.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

ENDED: Final = 128
"""What a shell adds to the number of the signal that ended a process."""


class Interrupted(KeyboardInterrupt):
    """A signal came. `code` is the exit code that tells of it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = ENDED + number


class Interrupts:
    """What `SIGNALS` do while the context lasts: raise `Interrupted`, or wait to be asked for.

    A signal that the process was started to ignore stays ignored.

    Args:
        notice: said when a signal has to wait.
    """

    def __init__(self, notice: str = "") -> None:
        self._notice = notice
        self._number: int | None = None
        self._awaited = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):  # None: not of Python, cannot be put back
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @property
    def code(self) -> int:
        """The exit code that tells of the signal; of SIGINT where another process was told."""
        return ENDED + (self._number or signal.SIGINT)

    def came(self) -> bool:
        """Whether a signal has come. From the first call on, signals wait for the next one.

        A second Ctrl-C does not wait.
        """
        self._awaited = True
        return self._number is not None

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        again, self._number = self._number is not None, number
        if not self._awaited or (again and number == signal.SIGINT):
            raise Interrupted(number)
        if not again:
            os.write(2, self._notice.encode())  # what was interrupted may be using sys.stderr


def command(*arguments: str) -> str:
    """`hrm` with these arguments, called as it was to start this process, as typed in a shell."""
    start = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    if len(start) == 2 and not start[1].endswith(".py"):  # a script that pip made
        program = Path(start[1])
        start = [program.name if shutil.which(program.name) == str(program) else str(program)]
    return quoted([*start, *arguments])


def command_with(option: str) -> str:
    """The command that started this process, with `option` once, as it is typed in a shell."""
    arguments = sys.argv[1:]
    if option not in arguments:
        arguments.insert(arguments.index("--") if "--" in arguments else len(arguments), option)
    return command(*arguments)


def quoted(words: list[str], windows: bool = os.name == "nt") -> str:
    """One line of which a shell makes these words."""
    return subprocess.list2cmdline(words) if windows else shlex.join(words)
