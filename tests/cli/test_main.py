"""The entry point starts the command line, or says what to install."""

import os
import subprocess
import sys

import pytest

from hrm_cli.__main__ import main


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
    monkeypatch.setitem(sys.modules, "hrm_cli.show", None)
    monkeypatch.delattr("hrm_cli.show", raising=False)
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


@pytest.mark.parametrize(
    ("module", "expected"),
    [("hrm_cli.__main__", "None False"), ("hrm_train.trainer, hrm_export", "None True")],
)
def test_importing_leaves_the_environment_alone(module: str, expected: str) -> None:
    """The command line has torch imported after it has set the policy; a library sets none."""
    program = (
        f"import os, sys, {module}\n"
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
    assert done.stdout.split("\n")[0] == expected
