"""Ids and facts of names, and what adding more leaves as it is."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from hrm_runtime.market.instruments import Instrument, Timeframe
from hrm_train.data.vocabulary import Vocabulary, require_names
from hrm_train.errors import DataInvalid, SettingsInvalid
from hrm_train.settings import Settings, parse_settings

MakeSettings = Callable[..., Settings]

STOCK: dict[str, Any] = {
    "type": "stock", "lot_size": 1, "tick_size": 0.05, "premium_min": 0.025, "premium_max": 0.05,
}  # fmt: skip
INDEX: dict[str, Any] = {
    "type": "index", "lot_size": 75, "tick_size": 0.05, "premium_min": 0.01, "premium_max": 0.02,
}  # fmt: skip


def ids(facts: dict[str, Any]) -> dict[str, int]:
    return {name: entry.id for name, entry in facts.items()}


def test_ids_count_from_one_in_sorted_order_of_name_and_zero_is_unknown(settings: Settings) -> None:
    vocabulary = Vocabulary.of(settings, [("Reliance", "5"), ("Nifty", "15"), ("Nifty", "5")])
    assert vocabulary == Vocabulary(
        instruments={
            "unknown": Instrument(id=0, **STOCK),
            "Nifty": Instrument(id=1, **INDEX),
            "Reliance": Instrument(id=2, **STOCK),
        },
        timeframes={"15": Timeframe(id=1, seconds=900), "5": Timeframe(id=2, seconds=300)},
    )


@pytest.mark.parametrize("seed", ["1", "2"])
def test_ids_are_the_same_in_every_process(seed: str) -> None:
    series = [(name, frame) for name in ("B", "a", "Ä", "C", "A") for frame in ("60", "D", "5")]
    script = (
        "import json, sys; from dataclasses import asdict;"
        "from hrm_train.data.vocabulary import Vocabulary; from hrm_train.settings import Settings;"
        "series = set(map(tuple, json.load(sys.stdin)));"
        "print(json.dumps(asdict(Vocabulary.of(Settings(), series))))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(series),
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    own = Vocabulary.of(Settings(), series)
    assert json.loads(other.stdout) == asdict(own)
    assert ids(own.instruments) == {"unknown": 0, "A": 1, "B": 2, "C": 3, "a": 4, "Ä": 5}


def test_a_name_that_is_not_there_has_the_facts_of_unknown_and_its_own_seconds(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings({"instruments.unknown": {"lot_size": 10}})
    vocabulary = Vocabulary.of(settings, [("Nifty", "5")])
    assert vocabulary.instrument("Nifty") == Instrument(id=1, **INDEX)
    assert vocabulary.instrument("Tcs") == Instrument(id=0, **STOCK | {"lot_size": 10})
    assert vocabulary.timeframe(settings, "5") == Timeframe(id=1, seconds=300)
    assert vocabulary.timeframe(settings, "D") == Timeframe(id=0, seconds=86_400)


# more names


def test_new_names_follow_in_sorted_order_and_later_additions_follow_them(
    settings: Settings,
) -> None:
    first = Vocabulary.of(settings, [("M", "5"), ("K", "5")])
    second = first.extended(settings, [("Z", "60"), ("A", "15"), ("M", "5"), ("M", "D")])
    third = second.extended(settings, [("L", "1"), ("K", "60")])
    assert ids(first.instruments) == {"unknown": 0, "K": 1, "M": 2}
    assert ids(second.instruments) == {"unknown": 0, "K": 1, "M": 2, "A": 3, "Z": 4}
    assert ids(third.instruments) == {"unknown": 0, "K": 1, "M": 2, "A": 3, "Z": 4, "L": 5}
    assert ids(second.timeframes) == {"5": 1, "15": 2, "60": 3, "D": 4}
    assert ids(third.timeframes) == {"5": 1, "15": 2, "60": 3, "D": 4, "1": 5}


def test_a_timeframe_in_another_spelling_is_no_new_name(settings: Settings) -> None:
    first = Vocabulary.of(settings, [("M", "5m"), ("K", "5T"), ("K", "1h")])
    assert ids(first.timeframes) == {"5": 1, "60": 2}
    second = first.extended(settings, [("M", "5min"), ("M", "60m"), ("M", "1d")])
    assert ids(second.timeframes) == {"5": 1, "60": 2, "D": 3}
    assert second.timeframe(settings, "24h") == Timeframe(id=3, seconds=86_400)


def test_names_keep_their_facts_and_new_ones_have_those_of_the_settings(
    settings: Settings, make_settings: MakeSettings
) -> None:
    later = make_settings(
        {
            "instruments": {"Nifty": {"lot_size": 50}, "Tcs": {"lot_size": 7}},
            "timeframes": {"5": {"seconds": 301}, "W": {"seconds": 604_800}},
        }
    )
    known = Vocabulary.of(settings, [("Nifty", "5")])
    larger = known.extended(later, [("Nifty", "5"), ("Tcs", "W")])
    assert larger.instruments == known.instruments | {
        "Tcs": Instrument(id=2, **STOCK | {"lot_size": 7})
    }
    assert larger.timeframes == known.timeframes | {"W": Timeframe(id=2, seconds=604_800)}


def test_known_names_alone_change_nothing(settings: Settings) -> None:
    known = Vocabulary.of(settings, [("Nifty", "5"), ("Tcs", "15")])
    assert known.extended(settings, [("Tcs", "5")]) == known
    assert known.extended(settings, []) == known


@pytest.mark.parametrize("name", [("unknown", "5"), ("Nifty", "unknown")])
def test_a_name_that_is_unknown_is_refused(name: tuple[str, str], settings: Settings) -> None:
    message = "expected series by name; 'unknown' stands for all others"
    with pytest.raises(DataInvalid, match=message):
        Vocabulary.of(settings, [name])
    with pytest.raises(DataInvalid, match=message):
        Vocabulary.of(settings, []).extended(settings, [name])


def test_a_new_timeframe_without_seconds_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingsInvalid, match=r"timeframes\.weekly: expected its seconds"):
        Vocabulary.of(settings, []).extended(settings, [("Nifty", "weekly")])


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("max_instruments", "embeddings.max_instruments: expected at least 3, was 2"),
        ("max_timeframes", "embeddings.max_timeframes: expected at least 2, was 1"),
    ],
)
def test_more_names_than_rows_are_refused(
    limit: str, message: str, make_settings: MakeSettings
) -> None:
    exactly = {"network.embeddings.max_instruments": 3, "network.embeddings.max_timeframes": 2}
    limits = make_settings(exactly).network.embeddings
    vocabulary = Vocabulary.of(make_settings(), [("A", "5"), ("B", "5"), ("C", "15")])
    vocabulary.require_rows(limits)
    less = limits.model_copy(update={limit: getattr(limits, limit) - 1})
    with pytest.raises(DataInvalid, match=message):
        vocabulary.require_rows(less)


# names that nothing has

MANY = [(name, "5") for name in "ABCDEF"]


@pytest.mark.parametrize(
    ("declared", "series", "problem"),
    [
        ("Nitfy", [("Nifty", "5"), ("Tcs", "5")], "the closest is Nifty"),
        (
            "nifty",
            [("Nifty", "5"), ("Niftx", "5")],
            "the closest is Nifty, which differs in upper and lower case",
        ),
        (
            "NIFTY",
            [("Nifty", "5")],
            "the closest is Nifty, which differs in upper and lower case",
        ),
        (
            "BANK NIFTY",
            [("Bank_Nifty", "5"), ("Nifty", "5")],
            "the closest is Bank_Nifty, which is spelt otherwise",
        ),
        ("EUR%2FUSD", [("EUR/USD", "5")], "the closest is EUR/USD"),
        ("Reliance", [("Nifty", "5"), ("Bankex", "5")], "known are Bankex, Nifty"),
        ("Reliance", MANY[:5], "known are A, B, C, D, E"),
        ("Reliance", MANY, "known are A, B, C, D, E, ..."),
    ],
)
def test_facts_of_an_instrument_that_is_not_there_are_refused_with_the_closest(
    declared: str, series: list[tuple[str, str]], problem: str
) -> None:
    settings = parse_settings({"instruments": {declared: {}}})
    message = (
        f"instruments.{declared}: expected a name of the data; {problem}; correct it, or remove "
        "these facts"
    )
    with pytest.raises(SettingsInvalid, match=f"^{re.escape(message)}$"):
        require_names(settings, series)


def test_every_name_that_is_not_there_has_its_own_line() -> None:
    facts = {"seconds": 604_800}
    settings = parse_settings(
        {"instruments": {"Nifty": {}, "TCS": {}}, "timeframes": {"w": facts, "M": facts}}
    )
    with pytest.raises(SettingsInvalid) as caught:
        require_names(settings, [("Nifty", "W"), ("Tcs", "5")])
    case = ", which differs in upper and lower case"
    end = "correct it, or remove these facts"
    assert str(caught.value).splitlines() == [
        f"instruments.TCS: expected a name of the data; the closest is Tcs{case}; {end}",
        f"timeframes.w: expected a name of the data; the closest is W{case}; {end}",
        f"timeframes.M: expected a name of the data; known are 5, W; {end}",
    ]


def test_facts_of_a_timeframe_may_have_another_spelling_than_the_data() -> None:
    settings = parse_settings({"timeframes": {"weekly": {"seconds": 604_800}}})
    require_names(settings, [("Nifty", "1w")])
    assert Vocabulary.of(settings, [("Nifty", "1w")]).timeframes.keys() == {"weekly"}


def test_facts_of_names_that_are_there_and_of_unknown_are_taken() -> None:
    facts = {"seconds": 604_800}
    settings = parse_settings(
        {
            "instruments": {"Nifty": {}, "Tcs": {}, "unknown": {}},
            "timeframes": {"W": facts, "5": facts, "unknown": facts},
        }
    )
    require_names(settings, [("Nifty", "5"), ("Tcs", "W")])


def test_names_of_a_checkpoint_are_known_without_data(settings: Settings) -> None:
    known = Vocabulary.of(settings, [("Nifty", "15")])
    facts = {"seconds": 900}
    declared = parse_settings({"instruments": {"Nifty": {}}, "timeframes": {"15": facts}})
    require_names(declared, [("Tcs", "5")], known)
    wrong = parse_settings({"instruments": {"nifty": {}}, "timeframes": {"unknow": facts}})
    with pytest.raises(SettingsInvalid) as caught:
        require_names(wrong, [("Tcs", "5")], known)
    assert str(caught.value).splitlines() == [
        (
            "instruments.nifty: expected a name of the data or of the checkpoint; the closest is "
            "Nifty, which differs in upper and lower case; correct it, or remove these facts"
        ),
        (
            "timeframes.unknow: expected a name of the data or of the checkpoint; known are 15, 5; "
            "correct it, or remove these facts"
        ),
    ]
