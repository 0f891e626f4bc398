"""`hrm`, held at a moment: `python interrupted.py ARGUMENTS`, with `HELD` in the environment.

`HELD` is "RANK NAME NUMBER": the process of that rank says its id on standard error before the
call of that number of the function called NAME, and waits for a line on standard input.
"""

import os
import pkgutil
import signal
import sys
from typing import Any

from hrm_cli.__main__ import main


def hold(rank: str, name: str, number: str) -> None:
    """Have the function of that name wait, the time that it is called for the `number`th time."""
    owner, _, attribute = name.rpartition(".")
    place = pkgutil.resolve_name(owner)
    function = getattr(place, attribute)
    calls = 0

    def held(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(number) and os.environ.get("LOCAL_RANK", "0") == rank:
            print("held", os.getpid(), file=sys.stderr, flush=True)
            sys.stdin.readline()
        return function(*arguments, **named)

    setattr(place, attribute, held)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been started ignoring it
    if "HELD" in os.environ:
        hold(*os.environ["HELD"].split())
    main()
