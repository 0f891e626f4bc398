"""`hrm replay` says how much of a journal is equal, or what is not, with the code that promises."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import Serving
from live import ON, SAFETY_S, Clock, bar_at
from rich.console import Console
from synthetic import ACCOUNTS, random_bars
from typer.testing import CliRunner

from hrm_cli.app import app
from hrm_cli.show import console, report
from hrm_runtime import Journal, LiveEngine, LiveSettings, load
from hrm_runtime.artifact.contract import FORMAT_VERSION
from hrm_runtime.live.replay import Difference

ARTIFACT = Path(__file__).parents[2] / "data" / f"artifact-{FORMAT_VERSION}"
EQUAL, DIFFERENT, BAD_INPUT = 0, 1, 2


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three decisions: two of the network and a repeat."""
    bars, clock = random_bars(207, seed=3), Clock(1_700_630_400.0)
    how = LiveSettings(clock=clock, deadline=SAFETY_S)
    with LiveEngine(load(ARTIFACT), how, Journal(tmp_path / "journal")) as engine:
        engine.feed(bars[:-1], **ON)
        for side in ("flat", "flat", "long"):
            engine.decide(bar_at(bars, -1), ACCOUNTS[side], **ON)
    return tmp_path / "journal"


def spoil(journal: Path, change: str = "quantity = 7") -> str:
    """Change the third decision; the name of the file."""
    (file,) = journal.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE decision SET {change} WHERE sequence = 3")  # noqa: S608, our own
    return file.name


def hrm(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no line is broken."""
    monkeypatch.setattr(console, "out", Console(width=200))


COUNTS = {"files": 1, "events": 8, "recomputed": 2, "checked": 1, "counted": 0, "lost": 0}


def test_an_equal_journal_is_shown_in_numbers(journal: Path) -> None:
    result = hrm(journal, "--model", ARTIFACT)
    assert result.exit_code == EQUAL
    rows = [line.strip("│ ").split("│") for line in result.stdout.splitlines() if "│" in line]
    assert {name.strip(): int(value) for name, value in rows} == {
        "files": 1,
        "events": 8,
        "decisions made again": 2,
        "decisions checked": 1,
        "decisions only counted": 0,
        "events lost": 0,
    }
    assert result.stdout.splitlines()[-1] == "no difference"
    assert result.stderr == "deciding again\n"


def test_an_equal_journal_is_one_json_object(journal: Path) -> None:
    result = hrm(journal, "--model", ARTIFACT, "--json")
    assert result.exit_code == EQUAL
    assert json.loads(result.stdout) == {**COUNTS, "difference": None}


def test_a_difference_exits_with_1_and_is_named(journal: Path) -> None:
    name = spoil(journal)
    result = hrm(journal, "--model", ARTIFACT)
    assert result.exit_code == DIFFERENT
    assert result.stdout.splitlines()[-1] == (
        f"{name}, event 8, decision 3, Alpha 5, bar of 2023-11-22 05:15 UTC: quantity differs: "
        "recorded 7.0, found again 3.0"
    )


def test_a_difference_is_an_object_in_json(journal: Path) -> None:
    name = spoil(journal)
    result = hrm(journal, "--model", ARTIFACT, "--json")
    assert result.exit_code == DIFFERENT
    assert json.loads(result.stdout) == {
        **COUNTS,
        "recomputed": 1,
        "difference": {
            "file": name,
            "event": 8,
            "sequence": 3,
            "instrument": "Alpha",
            "timeframe": "5",
            "datetime": 1_700_630_100,
            "what": "quantity",
            "recorded": "7.0",
            "recomputed": "3.0",
        },
    }


WHERE = Difference(
    file="a.sqlite", event=7, sequence=None, instrument="Alpha", timeframe="5",
    datetime=1_700_630_100, what="reason", recorded="ok", recomputed="gap",
)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (WHERE, "a.sqlite, event 7, Alpha 5, bar of 2023-11-22 05:15 UTC"),
        (replace(WHERE, sequence=3, datetime=None), "a.sqlite, event 7, decision 3, Alpha 5"),
        (replace(WHERE, instrument=None, timeframe=None, datetime=None), "a.sqlite, event 7"),
    ],
    ids=["a bar", "a refused decision", "an artifact"],
)
def test_a_difference_says_where_it_is_as_far_as_it_is_known(given: Difference, said: str) -> None:
    assert report.difference(given) == f"{said}: reason differs: recorded ok, found again gap"


def test_one_file_is_replayed_alone(journal: Path) -> None:
    (file,) = journal.glob("*.sqlite")
    result = hrm(file, "--model", ARTIFACT, "--model", ARTIFACT, "--json")
    assert json.loads(result.stdout) == {**COUNTS, "difference": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("action = 'BUY'", "action: expected one of"),
        ("capital = 2e15", "account.capital: expected at most 1e+15"),
    ],
)
def test_a_damaged_journal_exits_with_2(change: str, message: str, journal: Path) -> None:
    spoil(journal, change)
    result = hrm(journal, "--model", ARTIFACT, "--json")
    assert (result.exit_code, result.stdout) == (BAD_INPUT, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "--model", ARTIFACT), "nowhere: expected a journal's file, found none"),
        ((".", "--model", ARTIFACT), ".: expected a journal, found no file of one"),
        ((".", "--model", "nowhere"), "nowhere: expected an artifact folder"),
        ((".",), "Missing option '--artifact'"),
    ],
)
def test_what_cannot_be_replayed_exits_with_2(
    arguments: tuple[Any, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = hrm(*arguments)
    assert (result.exit_code, result.stdout) == (BAD_INPUT, "")
    assert message in result.stderr


def test_a_replay_needs_nothing_but_the_extra_cli(journal: Path, serving: Serving) -> None:
    result = serving("replay", journal, "--model", ARTIFACT, "--json")
    assert result.returncode == EQUAL, result.stderr
    assert json.loads(result.stdout) == {**COUNTS, "difference": None}
