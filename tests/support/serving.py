"""`hrm` where nothing can be imported that only training needs: `python serving.py ARGUMENTS`.

`BEFORE` in the environment is code that is run first. `python serving.py --listen SOCKET` loads
what serving needs, for `forks` of it to go on from there.
"""

import os
import sys

from forks import enter

TRAINING = ("torch", "onnx", "onnxscript", "openvino", "polars", "yaml")
MODULES = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "hrm_cli.app",
    "hrm_runtime.artifact.session",
    "hrm_runtime.market.features",
)
"""What most of the time goes into."""


def main() -> None:
    """Run `hrm`."""
    from hrm_cli.__main__ import main as hrm  # after the decision whether a fork runs it

    exec(os.environ.get("BEFORE", ""))  # noqa: S102, a test's own
    hrm()


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(TRAINING))  # type: ignore[arg-type]  # None bars a module
    enter(main, MODULES)
