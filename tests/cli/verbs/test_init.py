"""`hrm init` writes settings to begin with."""

from pathlib import Path

import pytest
from command import BAD_INPUT, DONE, hrm

from hrm_cli.verbs.init import Preset
from hrm_train import load_settings
from hrm_train.settings import PRESETS, preset


def test_its_presets_are_those_of_the_library() -> None:
    assert {name.value for name in Preset} == set(PRESETS)


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_init_writes_settings_that_load_as_the_preset(name: str, tmp_path: Path) -> None:
    result = hrm("init", tmp_path / "new", "--preset", name)
    assert result.exit_code == DONE
    assert str(tmp_path / "new" / "settings.yaml") in result.stderr
    assert load_settings(tmp_path / "new" / "settings.yaml") == preset(name)


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("mine")
    result = hrm("init", tmp_path)
    assert result.exit_code == BAD_INPUT
    assert "expected to write a new file" in result.stderr
    assert (tmp_path / "settings.yaml").read_text() == "mine"


def test_init_adds_ours_to_a_hosts_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("trading: {symbol: Nifty}\n")
    result = hrm("init", tmp_path, "--preset", "tiny", "--add")
    assert result.exit_code == DONE
    assert f"added hierarchical_reasoning_model to {path}" in result.stderr
    assert path.read_text().startswith("trading: {symbol: Nifty}\n\n# The Hierarchical Reasoning")
    assert load_settings(path) == preset("tiny")
    again = hrm("init", tmp_path, "--add")
    assert again.exit_code == BAD_INPUT
    assert "expected no hierarchical_reasoning_model yet" in again.stderr
