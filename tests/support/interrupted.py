"""`hrm`, held at a moment: `python interrupted.py ARGUMENTS`, with `HELD` in the environment.

`HELD` is "RANK NAME NUMBER": the process of that rank says its id on standard error before the
call of that number of the function called NAME, and waits for a line on standard input.

`python interrupted.py --listen SOCKET` loads what training from tensors needs, for `forks` of it to
go on from there. No library that serves can be imported in them.
"""

import os
import pkgutil
import signal
import sys
from typing import Any

from forks import enter

SERVING = ("onnxruntime", "talib")
TRAINING = (
    "hrm_cli.verbs.train",
    "hrm_cli.show.training",
    "hrm_train.learning.trainer",
)


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


def main() -> None:
    """Run `hrm`, held where that was asked for."""
    from hrm_cli.__main__ import main as hrm  # after the decision whether a fork runs it

    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been started ignoring it
    if "HELD" in os.environ:
        hold(*os.environ["HELD"].split())
    hrm()


if __name__ == "__main__":
    if sys.argv[1] == "--listen":
        sys.modules.update(dict.fromkeys(SERVING))  # type: ignore[arg-type]  # None bars a module
    enter(main, TRAINING)
