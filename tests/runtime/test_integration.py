"""The programs of docs/integration.md, run against a host of a few bars."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from documents import ROOT, blocks
from host import Observation, observed
from live import SAFETY_S, Clock, bar_at
from synthetic import ACCOUNTS, random_bars, scaled

from hrm_runtime import Action, Bar, Bars, Decision, LiveSettings, Model, load
from hrm_runtime.live.observation import HOST_COLUMNS
from hrm_runtime.log import log

DOCUMENT = ROOT / "docs" / "integration.md"
PROGRAMS = {block.heading: block.text for block in blocks(DOCUMENT) if block.language == "python"}
"""The program of each section, by its heading."""

FED, DECIDED = 225, 4
"""Bars of history, three days' worth, and bars that close while a program runs."""

HELD = replace(ACCOUNTS["long"], entry_price=50_000.0, unrealized_pnl=600.0)
ACCOUNT_OF = {"Nifty": ACCOUNTS["flat"], "Bank_Nifty": HELD}


def opening(day: int, number: int) -> int:
    """Of a day's bar of five minutes, the first at 09:15 in India."""
    return int(datetime(2024, 11, day, 3, 45, tzinfo=UTC).timestamp()) + 300 * number


STAMPS = np.array([opening(day, number) for day in (12, 13, 14, 18) for number in range(75)])
BARS = {
    name: replace(random_bars(300, seed, price=price), datetime=STAMPS)[: FED + DECIDED]
    for name, seed, price in (("Nifty", 31, 23_500.0), ("Bank_Nifty", 32, 50_200.0))
}
"""Three days, a holiday, a weekend, and the morning after."""


class Host:
    """What the document calls the host, and what it was told to trade."""

    def __init__(self, artifact: Path, log_file: Path) -> None:
        self.clock = Clock(float(STAMPS[FED]))
        self.closed = FED
        self.alerts: list[str] = []
        self.traded: list[tuple[str, Action, int]] = []
        self.stepped: list[tuple[int, float]] = []
        self.sent: list[tuple[int, float]] = []
        self.columns = (*HOST_COLUMNS, "volume")
        self.together = asyncio.Barrier(len(BARS))
        self.names = {
            "artifact": artifact,
            "log_file": log_file,
            "clock": self.clock,
            "columns": self.columns,
            "account": ACCOUNT_OF.__getitem__,
            "place": lambda *order: self.traded.append(order),
            "alert": self.alerts.append,
            "step": self.stepped.append,
            "send": self.sent.append,
            **{
                name: getattr(self, name)
                for name in ("history", "closed_bars", "arriving", "observe", "observations")
            },
        }

    def run(self, heading: str) -> None:
        """Run the program below `heading`."""
        program = compile(PROGRAMS[heading], f"{DOCUMENT.name}, {heading}", "exec")
        exec(program, {"__name__": "host", **self.names})  # noqa: S102, our own document

    def history(self, instrument: str, timeframe: str) -> Bars:
        assert timeframe == "5"
        return BARS[instrument][: self.closed]

    def close(self, number: int) -> None:
        """Let the bar of this number be the newest that is closed."""
        self.closed = number + 1
        self.clock.now = float(STAMPS[number] + 300)

    def closed_bars(self, instrument: str, timeframe: str) -> Iterator[Bar]:
        assert timeframe == "5"
        for number in range(FED, FED + DECIDED):
            self.close(number)
            yield bar_at(BARS[instrument], number)

    async def arriving(self, instrument: str, timeframe: str) -> AsyncIterator[Bar]:
        assert timeframe == "5"
        for number in range(FED, FED + DECIDED):
            await self.together.wait()  # the streams' bars close at the same moments
            self.close(number)
            yield bar_at(BARS[instrument], number)

    def observe(self, instrument: str, timeframe: str) -> Observation:
        shown = self.history(instrument, timeframe)
        return observed(shown, ACCOUNT_OF[instrument], columns=self.columns)

    def observations(self, instrument: str, timeframe: str) -> Iterator[Observation]:
        """Scaled beyond recognition; two bars close between the second and the third."""
        for number in (FED, FED + 1, FED + 3):
            self.close(number)
            yield np.clip(self.observe(instrument, timeframe), -5, 5)


@pytest.fixture
def indian(copy_artifact: ArtifactCopy) -> Path:
    """The frozen artifact, allowed to decide for instruments it was not trained on."""
    copy_artifact.reseal(allow_unknown_instrument=True)
    return copy_artifact.path


@pytest.fixture
def host(indian: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """With an engine that takes its time, since no program is about that."""
    defaults = {**LiveSettings.__init__.__kwdefaults__, "deadline": SAFETY_S}
    monkeypatch.setattr(LiveSettings.__init__, "__kwdefaults__", defaults)
    return Host(indian, tmp_path / "decisions.jsonl")


@pytest.fixture
def its_model(indian: Path) -> Model:
    return load(indian)


@pytest.fixture
def quiet_logger() -> Iterator[None]:
    """Gives the library's logger back as it was."""
    logger = logging.getLogger("hrm_runtime")
    level, handlers = logger.level, list(logger.handlers)
    yield
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(level)


def decided(
    model: Model, instrument: str, numbers: Any = range(FED, FED + DECIDED)
) -> list[Decision]:
    """What the model decides at these bars of a stream."""
    bars, account = BARS[instrument], ACCOUNT_OF[instrument]
    return [
        model.decide(bars[: number + 1], account, instrument=instrument, timeframe="5")
        for number in numbers
    ]


def test_every_program_of_the_document_is_run_here() -> None:
    assert list(PROGRAMS) == [
        "A host with threads",
        "A host with an event loop",
        "A host that calls agents",
        "A host that normalises",
        "When the market trades",
        "How a feed stamps its bars",
        "When the past changes",
        "Logs as JSON lines",
    ]
    assert DOCUMENT.read_text(encoding="utf-8").count("```python") == len(PROGRAMS)


Order = tuple[str, Action, float]


def orders(model: Model, instrument: str) -> list[Order]:
    """What is traded on the model's decisions."""
    found = [(instrument, one.action, one.quantity) for one in decided(model, instrument)]
    return [order for order in found if order[1] is not Action.HOLD]


def test_a_host_with_threads_trades_what_the_model_decides(host: Host, its_model: Model) -> None:
    host.run("A host with threads")
    assert host.traded == orders(its_model, "Nifty") != []
    assert host.alerts == []


def test_a_host_with_too_little_history_is_told_and_trades_nothing(host: Host) -> None:
    host.names["history"] = lambda *stream: BARS["Nifty"][FED - 100 : FED]
    host.run("A host with threads")
    assert host.alerts == ["warming_up"] * DECIDED
    assert host.traded == []


def test_a_host_with_an_event_loop_trades_both_streams(host: Host, its_model: Model) -> None:
    host.run("A host with an event loop")
    found = {name: [order for order in host.traded if order[0] == name] for name in BARS}
    assert found == {name: orders(its_model, name) for name in BARS}
    assert all(found.values())
    assert host.alerts == []


SERVICE = {"BUY_LONG": 3, "SELL_SHORT": 1, "HOLD": 2}


def test_a_host_that_calls_agents_gets_the_numbers_it_knows(host: Host, its_model: Model) -> None:
    host.run("A host that calls agents")
    expected = decided(its_model, "Nifty")
    assert host.stepped == [(int(one.action), one.quantity) for one in expected]
    assert host.sent == [(SERVICE[one.action.name], min(one.quantity, 10.0)) for one in expected]
    assert host.sent != host.stepped


def test_a_host_that_normalises_gets_the_same_decisions(host: Host, its_model: Model) -> None:
    host.run("A host that normalises")
    expected = decided(its_model, "Nifty", (FED, FED + 1, FED + 3))
    assert host.stepped == [(int(one.action), one.quantity) for one in expected]


def test_the_hours_are_as_the_document_asserts(host: Host) -> None:
    host.run("When the market trades")


def test_stamps_are_as_the_document_asserts(host: Host) -> None:
    host.run("How a feed stamps its bars")


def test_a_host_that_hears_of_it_changes_the_past(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    bars = BARS["Nifty"][:FED]
    notices = [
        ("corrected", scaled(bars[-2:], 1.001)),
        ("adjusted", scaled(bars, 0.5)),
        ("expired", None),
    ]
    host.names["notices"] = lambda instrument, timeframe: notices
    host.run("When the past changes")
    _, *told = [record.hrm for record in caplog.records]  # type: ignore[attr-defined]
    assert told == [
        {"event": "stream corrected", "instrument": "Nifty", "timeframe": "5", "bars": 2},
        {"event": "stream reset", "instrument": "Nifty", "timeframe": "5", "bars": FED},
        {"event": "stream dropped", "instrument": "Nifty", "timeframe": "5"},
    ]


def test_logs_are_json_lines(host: Host, its_model: Model, quiet_logger: None) -> None:
    host.run("Logs as JSON lines")
    log(logging.ERROR, "decision", RuntimeError("a bug"), reason="error")
    lines = [json.loads(line) for line in host.names["log_file"].read_text().splitlines()]
    decisions = [line for line in lines if (line["level"], line["event"]) == ("DEBUG", "decision")]
    others = [line for line in lines if line not in decisions]
    assert len(decisions) == DECIDED  # whose lines are written after their answers, by a worker
    assert [(line["level"], line["event"]) for line in others] == [
        ("WARNING", "unknown names"),
        ("CRITICAL", "killed"),
        ("ERROR", "decision"),
    ]
    taken = ("instrument", "timeframe", "sequence", "action", "quantity", "reason", "model_id")
    assert [[line[name] for name in taken] for line in decisions] == [
        ["Nifty", "5", number, one.action.name, one.quantity, "ok", its_model.id]
        for number, one in enumerate(decided(its_model, "Nifty"), start=1)
    ]
    assert (decisions[0]["why"], others[1]["why"]) == (None, "the end of the day")
    assert others[-1]["traceback"] == "RuntimeError: a bug"
