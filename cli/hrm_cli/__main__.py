"""`hrm`, also as `python -m hrm_cli`."""

import errno
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Final, NoReturn

NEEDED: Final = ("typer", "rich")
"""By all verbs; what else a verb needs it says itself."""

CANNOT_BE_WRITTEN = 2
INTERRUPTED = 128 + signal.SIGINT
CLOSED = 141
"""What a shell tells of a process that wrote to a pipe which nobody reads: 128 and SIGPIPE."""


def main() -> NoReturn:
    """Run the command line, or say what to install; exit as `hrm_cli.app` says."""
    try:
        try:
            _run()
        finally:
            if sys.stdout is not None:  # as it is where it was closed before the start
                sys.stdout.flush()  # at the interpreter's exit it would be too late to tell
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):  # rich and typer exit with 1 then
            raise
        code = CLOSED
    except OSError as error:
        code = CLOSED if is_closed_pipe(error) else CANNOT_BE_WRITTEN
        if code != CLOSED:
            _say(f"expected to be able to write: {error}; make room, or give another place")
    except KeyboardInterrupt:  # before there was a verb
        code = INTERRUPTED
        _say("interrupted; nothing was written")
    _discard_output()
    sys.exit(code)


def is_closed_pipe(error: OSError, windows: bool = os.name == "nt") -> bool:
    """Whether this is what writing to a pipe raises once nobody reads it."""
    return isinstance(error, BrokenPipeError) or (windows and error.errno == errno.EINVAL)


def _run() -> None:
    # beside another process threads that spin at barriers wait for one that is not scheduled; torch
    # and scikit-learn read this when they are imported
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        for package in NEEDED:
            import_module(package)
        from hrm_cli.app import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in NEEDED:
            raise
        sys.exit(f"hrm: the command line needs {package}: pip install '.[cli]'")
    app()


def _say(message: str) -> None:
    with suppress(OSError):  # where standard error is what cannot be written
        print(f"hrm: {message}", file=sys.stderr)


def _discard_output() -> None:
    """Let what could not be written go nowhere: the interpreter would try it again at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


if __name__ == "__main__":
    main()
