"""Every Python and every version that pyproject.toml promises: `make matrix` tries them all.

What follows `--` is pytest's. `.venv-matrix/bin/nox --session runtime-3.12` runs one alone.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
OLDEST = PYTHONS[0]
LOCKED = ("--constraint", "constraints.txt")
TESTERS = ("pytest", "pytest-xdist", "hypothesis")

ROWS = {
    **{f"runtime-{python}": (python, "locked", "runtime") for python in PYTHONS},
    "lowest-runtime": (OLDEST, "lowest", "runtime"),
    "lowest-cli": (OLDEST, "lowest", "command line"),
}
NOT_FOUND = "skipped: this Python was not found"
outcomes: dict[str, str] = {}

nox.options.envdir = ".venv-matrix/sessions"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False  # the table names them, also where CI is set

if pyenv := shutil.which("pyenv"):  # its python3.12 starts only where this lists a 3.12
    listing = subprocess.check_output([pyenv, "versions", "--bare"], text=True)  # noqa: S603
    os.environ["PYENV_VERSION"] = ":".join(reversed(listing.split()))


@nox.session(python=PYTHONS)
def runtime(session: nox.Session) -> None:
    """What production has, as locked."""
    begin(session)
    session.install(*LOCKED, ".", *TESTERS)
    run_tests(session, "tests/runtime")


@nox.session(python=OLDEST, name="lowest-runtime")
def lowest_runtime(session: nox.Session) -> None:
    """What production has, and its metrics, at the lowest versions."""
    begin(session)
    session.install(*LOCKED, "uv")
    install_lowest(session, ".[metrics]")
    session.install(*LOCKED, *TESTERS)
    run_tests(session, "tests/runtime")


@nox.session(python=OLDEST, name="lowest-cli")
def lowest_cli(session: nox.Session) -> None:
    """The command line, what trains and exports, and what tests it, at the lowest versions."""
    begin(session)
    session.install(*LOCKED, "uv", "torch")  # pip is told where a CPU build is, uv is not:
    build = "from importlib.metadata import version; print(version('torch'), end='')"
    torch = session.run("python", "-c", build, silent=True)
    install_lowest(session, ".[dev]", f"torch=={torch}")  # so it leaves this one alone
    run_tests(session, "tests/cli")


@nox.session(python=False)
def table(_: nox.Session) -> None:
    """What became of each session; it comes last."""
    line = "{:8}{:10}{:14}{}"
    print(line.format("Python", "versions", "tests", "outcome"))
    for name, row in ROWS.items():
        found = shutil.which(f"python{row[0]}")
        print(line.format(*row, outcomes.get(name, "not run" if found else NOT_FOUND)))


def begin(session: nox.Session) -> None:
    """Whatever ends `session` before its tests are counted is a failure."""
    outcomes[session.name] = "failed before its tests were counted"
    shutil.rmtree("build", ignore_errors=True)  # what an old one holds would be installed too


def install_lowest(session: nox.Session, *what: str) -> None:
    """Install `what` and all that it names at the lowest versions, and the newest below those."""
    session.run("uv", "pip", "install", "--resolution", "lowest-direct", *what)


def run_tests(session: nox.Session, folder: str) -> None:
    """Run the tests in `folder` and keep what pytest counts."""
    report = Path(session.virtualenv.location, "tests.xml")
    try:
        session.run("pytest", f"--junit-xml={report}", *session.posargs, folder)
    finally:
        if report.exists():
            outcomes[session.name] = counted(report.read_text(encoding="utf-8"))


def counted(report: str) -> str:
    """What pytest's JUnit report counts, in a line."""
    counts = re.findall(r'errors="(\d+)" failures="(\d+)" skipped="(\d+)" tests="(\d+)"', report)
    errors, failures, skipped, tests = map(int, counts[0])
    failed = errors + failures
    passed = tests - failed - skipped
    outcome = "failed" if failed or not passed else "passed"
    return f"{outcome}: {passed} passed, {failed} failed, {skipped} skipped"
