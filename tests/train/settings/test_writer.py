"""Settings that are written: they read back equal, and their comments are examples."""

import re
from pathlib import Path

import pytest
import yaml

from hrm_train import load_settings
from hrm_train.settings import PRESETS, parse_settings, preset, render


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_the_examples_among_the_comments_say_what_names_may_have(name: str) -> None:
    text = render(preset(name))
    read = text.replace("# for example, instead of {}:", "#").replace(": {}", ":")
    read = re.sub("^#  ", "  ", read, flags=re.MULTILINE)
    settings = parse_settings(yaml.safe_load(read))
    assert {one: facts.model_dump() for one, facts in settings.instruments.items()} == {
        "Nifty": {
            "type": "index",
            "lot_size": 75,
            "tick_size": 0.05,
            "option_premium_range": (0.01, 0.02),
        }
    }
    assert {one: facts.seconds for one, facts in settings.timeframes.items()} == {"W": 604_800}
    assert settings.model_copy(update={"instruments": {}, "timeframes": {}}) == preset(name)


def test_no_example_stands_beside_what_is_given() -> None:
    given = {"instruments": {"TCS": {}}, "timeframes": {"W": {"seconds": 604_800}}}
    assert "example" not in render(parse_settings(given))


AWKWARD = ("Nifty 50", "5", "yes", "~", "", "a: b", "#1", "é😀", "'q\"", "two\nlines", "long " * 50)


@pytest.mark.parametrize("name", AWKWARD)
def test_rendered_settings_read_back_equal_whatever_the_names(name: str, tmp_path: Path) -> None:
    settings = parse_settings(
        {
            "hierarchical_reasoning_model": {"hierarchical": {"convergence_threshold": 1e-9}},
            "training": {"learning_rate": 1e-5, "label_capital": 1e22, "policy_temperature": 1 / 3},
            "instruments": {
                name: {"type": "index", "option_premium_range": [0.01, 1 / 7]},
                "other": {"lot_size": 20},
            },
            "timeframes": {name: {"seconds": 60}},
        }
    )
    assert load_settings(written(tmp_path, render(settings))) == settings
