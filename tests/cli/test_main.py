"""The entry point starts the command line, or says what to install."""

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
