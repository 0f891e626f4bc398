"""Presets: the files in models, what they build, and a file to begin with."""

import json
from pathlib import Path

import pytest
import torch

from hrm_train import HierarchicalReasoningModel, load_settings
from hrm_train.errors import SettingsInvalid
from hrm_train.settings import PRESETS, Settings, parse_settings, preset, render, write_preset

MODELS = Path(__file__).parents[3] / "models"


def shapes(settings: Settings) -> dict[str, torch.Size]:
    """Of every parameter, by name; nothing is allocated."""
    with torch.device("meta"):
        model = HierarchicalReasoningModel(settings)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", PRESETS)
def test_the_files_in_models_are_the_rendered_presets(name: str) -> None:
    path = MODELS / name / "settings.yaml"
    assert path.read_text(encoding="utf-8") == render(preset(name))
    assert load_settings(path) == preset(name)


def test_the_released_model_was_trained_with_the_settings_beside_it() -> None:
    settings = load_settings(MODELS / "base" / "market.yaml")
    contract = json.loads((MODELS / "base" / "artifact" / "contract.json").read_text())
    assert parse_settings(contract["provenance"]["settings"]) == settings


def test_a_preset_is_written_once(tmp_path: Path) -> None:
    path = write_preset(tmp_path / "new" / "folder", "tiny")
    assert path == tmp_path / "new" / "folder" / "settings.yaml"
    assert load_settings(path) == preset("tiny")
    with pytest.raises(
        SettingsInvalid, match=r"settings.yaml: expected to write a new file, found"
    ):
        write_preset(tmp_path / "new" / "folder", "base")
    assert load_settings(path) == preset("tiny")


def test_an_unknown_preset_leaves_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="found 'huge'"):
        write_preset(tmp_path / "new", "huge")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsInvalid, match=r"preset: expected one of base, tiny; found 'huge'"):
        preset("huge")


def test_the_base_preset_has_27_million_parameters_within_one_percent() -> None:
    assert sum(map(torch.Size.numel, shapes(preset("base")).values())) == pytest.approx(
        27e6, rel=0.01
    )
