"""What the documentation says of a journal: its tables, and what to ask them at night."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from live import BARS, ON
from replayed import Record, fed

from hrm_runtime import Model

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.fixture
def rows(story: Path) -> Iterator[Callable[[str], list[Any]]]:
    """Asks the story's file, as one would at night."""
    (file,) = story.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        yield lambda query: connection.execute(query).fetchall()


def queries() -> list[str]:
    text = OPERATIONS.read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


Rows = Callable[[str], list[Any]]


def test_the_documented_query_shows_the_last_decisions_and_why(rows: Rows) -> None:
    latest, *_, first = rows(queries()[0])
    assert latest == (
        9, "2023-11-22 01:25:00", "Alpha", "5", "HOLD", 1.0, "bad_input",
        "account: expected an Account or a mapping, found NoneType",
    )  # fmt: skip
    assert (first[0], first[4], first[6], first[7]) == (1, "BUY_LONG", "ok", None)


def test_the_documented_query_counts_reasons(rows: Rows) -> None:
    (reason, count, latest), *others = rows(queries()[1])
    assert (reason, count) == ("ok", 3)
    assert latest > 0
    assert {(name, number) for name, number, _ in others} == {
        (name, 1) for name in ("gap", "out_of_order", "stale", "killed", "warming_up", "bad_input")
    }


def test_the_documented_query_shows_what_was_refused_and_stopped(rows: Rows, model: Model) -> None:
    found = rows(queries()[2])
    assert [(event, what) for event, _, what, _ in found] == [
        (1, f"artifact {model.id}"),
        (11, "bar Alpha 5: out_of_order"),
        (15, "killed"),
        (18, "revived"),
    ]
    assert [why for *_, why in found][2] == "lunch"


def test_the_documented_query_shows_which_bars_took_the_place_of_others(
    record: Record, folder: Path
) -> None:
    with record() as engine:
        fed(engine, len(BARS))
        engine.correct(BARS[-2:], **ON)
        engine.reset(BARS[-50:], **ON)
        engine.drop(**ON)
        noon = datetime.fromtimestamp(engine.settings.clock(), UTC).strftime("%F %T")
    (file,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute(queries()[3]).fetchall()
    assert found == [
        (3, noon, "Alpha", "5", "corrected", 2),
        (4, noon, "Alpha", "5", "reset", 50),
        (5, noon, "Alpha", "5", "dropped", 0),
    ]


def test_there_are_four_documented_queries() -> None:
    assert len(queries()) == 4


@pytest.mark.parametrize("table", ["meta", "artifact", "control", "feed", "bar", "decision"])
def test_the_documented_columns_are_those_of_a_table(table: str, rows: Rows) -> None:
    (line,) = re.findall(rf"^\| `{table}` \| (.*) \|$", OPERATIONS.read_text("utf-8"), re.MULTILINE)
    documented = re.findall(r"`(\w+)`", line.partition(":")[0])
    assert documented == [row[1] for row in rows(f"PRAGMA table_info({table})")]
