"""What is true of every verb: its exit codes, its messages, its JSON."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command import BAD_INPUT, GATE_FAILED, answer, hrm, without

from hrm_runtime import Reason, load
from hrm_runtime.artifact.decision import hold


def test_numbers_json_does_not_know_are_null(
    artifact_folder: Path, bars_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(artifact_folder)
    decision = replace(hold(Reason.OK, model.id), value=float("inf"))
    monkeypatch.setattr(model, "decide", lambda *_, **__: decision)
    monkeypatch.setattr("hrm_runtime.load", lambda path: model)
    given = ("--data", bars_folder / "Alpha_5.csv")
    assert answer("predict", artifact_folder, *given)["value"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "missing.yaml", "--data", "x", "--out", "y"), "a readable settings file"),
        (("export", "nowhere", "--out", "y"), "nowhere: expected a checkpoint folder"),
        (("inspect", "nowhere"), "nowhere: expected an artifact folder"),
        (("init",), "Missing argument"),
        (("predict", "nowhere", "--instrument", "a"), "Missing option '--data'"),
    ],
)  # fmt: skip
def test_bad_input_exits_with_2_and_says_what_was_expected(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = hrm(*arguments)
    assert result.exit_code == BAD_INPUT
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("torch", ("train", "s", "--data", "x", "--out", "y"),
         "hrm: train needs torch: pip install '.[train]'"),
        ("bokeh_sampledata", ("demo",),
         "hrm: demo needs bokeh_sampledata: pip install '.[demo]'"),
        ("typer", ("init", "x"), "hrm: the command line needs typer: pip install '.[cli]'"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    package: str, arguments: tuple[str, ...], message: str
) -> None:
    result = without(package)(*arguments)
    assert result.stderr.strip() == message
    assert result.returncode in {GATE_FAILED, BAD_INPUT}


@pytest.mark.parametrize(
    ("package", "of", "arguments", "message"),
    [
        ("onnx", "hrm_export", ("export", "checkpoint", "--out", "y"),
         "hrm: export needs onnx: pip install '.[export]'"),
        ("bokeh_sampledata", "hrm_cli.demo", ("demo",),
         "hrm: demo needs bokeh_sampledata: pip install '.[demo]'"),
    ],
)  # fmt: skip
def test_a_missing_package_exits_with_2(
    package: str, of: str, arguments: tuple[str, ...], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where torch, which takes seconds to import, is there."""
    monkeypatch.setitem(sys.modules, package, None)
    for module in [name for name in sys.modules if f"{name}.".startswith(f"{of}.")]:
        monkeypatch.delitem(sys.modules, module)
    result = hrm(*arguments)
    assert result.exit_code == BAD_INPUT
    assert result.stderr.strip() == message


def test_a_module_that_is_missing_for_another_reason_is_not_explained_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hrm_runtime.artifact.golden", None)
    monkeypatch.setattr(
        "hrm_runtime.load_contract", lambda path: __import__("hrm_runtime.artifact.golden")
    )
    result = hrm("inspect", "x")
    assert isinstance(result.exception, ModuleNotFoundError)
