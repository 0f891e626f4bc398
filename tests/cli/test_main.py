"""The entry point starts the command line, or says what to install."""

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import Serving

from hrm_cli import __main__ as entry
from hrm_cli.__main__ import main

ARTIFACT = Path(__file__).parents[2] / "models" / "base" / "artifact"


def test_it_runs_the_verbs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hrm", "inspect", "nowhere"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "nowhere: expected an artifact folder" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_it_names_the_extra_it_needs(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] in {package, "hrm_cli"}]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=rf"needs {package}: pip install '\.\[cli\]'"):
        main()


def test_a_broken_installation_is_not_explained_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hrm_cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "hrm_cli.verbs.init", None)
    with pytest.raises(ModuleNotFoundError):
        main()


@pytest.mark.parametrize(("said", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_wait_passively_unless_the_user_says_otherwise(
    said: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY")  # of the tests; set again afterwards
    if said is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    monkeypatch.setattr(sys, "argv", ["hrm", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_importing_leaves_the_environment_alone() -> None:
    """The command line has torch imported after it has set the policy."""
    program = (
        "import os, sys, hrm_cli.__main__\n"
        "print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None False\n"


@pytest.mark.usefixtures("imported_anew")
def test_a_library_sets_no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of our modules does, all of them imported anew; torch itself is imported once."""
    monkeypatch.delenv("OMP_WAIT_POLICY")  # of the tests; set again afterwards
    for name in ("hrm_train.learning.trainer", "hrm_export", "hrm_export.exporter"):
        importlib.import_module(name)
    assert "OMP_WAIT_POLICY" not in os.environ
    assert "torch" in sys.modules


# where the output goes


def run_to(output: int, serving: Serving, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`hrm` with its standard output there: where it is quick, started as anybody would."""
    if arguments != ("--help",):
        return serving(*arguments, stdout=output)
    command = [sys.executable, "-m", "hrm_cli", *map(str, arguments)]
    return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)


VERBS = [("inspect", ARTIFACT), ("inspect", ARTIFACT, "--json"), ("--help",)]


@pytest.mark.parametrize("arguments", VERBS, ids=["table", "json", "help"])
def test_a_pipe_that_nobody_reads_ends_it_quietly(
    arguments: tuple[object, ...], serving: Serving
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run_to(writing, serving, *arguments)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("arguments", VERBS, ids=["table", "json", "help"])
def test_an_output_that_cannot_be_written_is_told(
    arguments: tuple[object, ...], serving: Serving
) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_to(full.fileno(), serving, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("hrm: expected to be able to write: [Errno 28] ")
    assert done.stderr.endswith("; make room, or give another place\n")


def fail(error: BaseException) -> None:
    raise error


def ended_by_rich() -> None:
    try:
        fail(BrokenPipeError())
    except BrokenPipeError:
        sys.exit(1)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (BrokenPipeError(), 141, ""),
        (OSError(28, "No space left"), 2, "hrm: expected to be able to write: [Errno 28] No spa"),
        (KeyboardInterrupt(), 130, "hrm: interrupted; nothing was written"),
        (None, 141, ""),
    ],
    ids=["pipe", "full", "interrupted", "as rich and typer end"],
)
def test_what_ends_it_outside_of_a_verb_has_an_exit_code(
    error: BaseException | None, code: int, told: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    discarded: list[int] = []
    monkeypatch.setattr(entry, "_run", lambda: fail(error) if error else ended_by_rich())
    monkeypatch.setattr(os, "dup2", lambda _, stream: discarded.append(stream))
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == code
    assert capsys.readouterr().err.startswith(told)
    assert discarded == [1, 2]


def test_a_gate_that_failed_is_no_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_run", lambda: sys.exit(1))
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1


def test_an_output_that_was_closed_before_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_run", lambda: sys.exit(0))
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0


def test_windows_calls_a_closed_pipe_an_invalid_argument() -> None:
    invalid = OSError(errno.EINVAL, "Invalid argument")
    assert entry.is_closed_pipe(invalid, windows=True)
    assert not entry.is_closed_pipe(invalid, windows=False)
    assert not entry.is_closed_pipe(OSError(errno.ENOSPC, "No space left"), windows=True)
    assert entry.is_closed_pipe(BrokenPipeError(), windows=False)
