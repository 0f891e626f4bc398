"""What settings say besides their values: lengths, facts, threads."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from synthetic import SMALL

from hrm_train.errors import SettingsInvalid
from hrm_train.settings import PRESETS, Settings, parse_settings, render


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("1", 60),
        ("5", 300),
        ("240", 14_400),
        ("D", 86_400),
        ("weekly", 604_800),
        ("5m", 300),
        ("4h", 14_400),
        ("1d", 86_400),
        ("W", 604_800),
    ],
)
def test_a_timeframe_is_minutes_or_a_day_or_as_declared(name: str, seconds: int) -> None:
    settings = parse_settings({"timeframes": {"weekly": {"seconds": 604_800}}})
    assert settings.seconds(name) == seconds


def test_a_declared_length_goes_before_the_name() -> None:
    settings = parse_settings({"timeframes": {"D": {"seconds": 23_400}, "5": {"seconds": 5}}})
    assert (settings.seconds("D"), settings.seconds("5")) == (23_400, 5)


@pytest.mark.parametrize("name", ["weekly", "0", "-5", "1M", "43200", "²", "", "1.5"])
def test_any_other_timeframe_must_be_declared(name: str) -> None:
    message = (
        f"timeframes.{name}: expected its seconds to be declared, a week at most, or a name such "
        f"as 5, 5m, 5min, 1h, D, 1d or W, since {name!r} says no length"
    )
    with pytest.raises(SettingsInvalid, match=re.escape(message)):
        Settings().seconds(name)


@pytest.mark.parametrize("seconds", [604_801, 30 * 86_400, 365 * 86_400])
def test_months_and_years_are_refused(seconds: int) -> None:
    message = (
        rf"^here: timeframes\.M\.seconds: expected at most 604800 \(a week\), found {seconds}: "
    )
    with pytest.raises(SettingsInvalid, match=message + "months and years have no length"):
        parse_settings({"timeframes": {"M": {"seconds": seconds}}}, source="here")


def test_facts_are_the_names_own_or_unknowns_or_a_plain_stocks(
    make_settings: Callable[..., Settings],
) -> None:
    declared = make_settings({"instruments.unknown": {"type": "index", "lot_size": 9}})
    assert declared.instrument_facts("Nifty").lot_size == 75
    assert declared.instrument_facts("Mystery") == declared.instruments["unknown"]
    plain = make_settings().instrument_facts("Mystery")
    assert plain.model_dump() == {
        "type": "stock", "lot_size": 1, "tick_size": 0.05, "option_premium_range": (0.025, 0.05),
    }  # fmt: skip


def test_settings_cannot_be_changed_after_reading(settings: Settings) -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.training.epochs = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "threads"),
    [
        (SMALL, 1),
        (PRESETS["tiny"], 2),
        (PRESETS["base"], 2),
        ({"hierarchical_reasoning_model": {"h_module": {"ffn_dim": 256}}}, 2),
        ({"training": {"threads": 1}}, 1),
        ({**PRESETS["tiny"], "training": {"threads": 16}}, 16),
    ],
)
def test_threads_follow_from_the_size_of_the_network_unless_they_are_set(
    changes: dict[str, Any], threads: int
) -> None:
    settings = parse_settings(changes)
    assert settings.threads == threads
    written_down = settings.with_threads()
    assert written_down.training.threads == threads
    assert (
        written_down.training.model_copy(update={"threads": settings.training.threads})
        == settings.training
    )
    assert parse_settings(yaml.safe_load(render(written_down))) == written_down
