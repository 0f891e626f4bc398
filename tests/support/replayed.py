"""What tests of a replay share: what is told to an engine, and a hand on its journal."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from live import BARS, FLAT, ON, eventually
from synthetic import ACCOUNTS

from hrm_runtime import Bar, Decision, LiveEngine
from hrm_runtime.live.replay import Replayed

FED = 206
"""Bars that are fed before the first decision."""
NOON = 1_700_630_400.0
LONG = ACCOUNTS["long"]

Record = Callable[..., LiveEngine]
"""Makes engines that keep a journal."""


def counts(found: Replayed) -> tuple[int, int, int, int]:
    """Recomputed, checked, counted, lost; there must be no difference."""
    assert found.difference is None, found.difference
    return found.recomputed, found.checked, found.counted, found.lost


def tell(engine: LiveEngine, bar: Any, account: Any = FLAT, **names: str) -> Decision:
    """Decide at the moment at which a bar of five minutes is closed, or at once."""
    if isinstance(bar, Bar):
        engine.settings.clock.now = bar.datetime + 300.0  # type: ignore[attr-defined]
    return engine.decide(bar, account, **names or ON)


def fed(engine: LiveEngine, count: int = FED, **names: str) -> LiveEngine:
    """With the first of `BARS`."""
    engine.feed(BARS[:count], **names or ON)
    return engine


def committed(engine: LiveEngine, decision: Decision) -> None:
    """Until it is on the disk, and with it all that happened before."""
    journal = engine._journal
    assert journal is not None
    eventually(lambda: journal.committed >= decision.sequence)


def edit(folder: Path, *changes: str | tuple[str, Any]) -> None:
    """Change the one file of a journal, in one row each."""
    (file,) = folder.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection, connection:
        for change in changes:
            statement, values = (change, ()) if isinstance(change, str) else change
            assert connection.execute(statement, values).rowcount == 1
