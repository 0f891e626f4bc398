import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import pytest

from hrm_runtime import Action, Reason
from hrm_runtime.log import LOGGER, log


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What a host that listens to everything gets."""
    found: list[logging.LogRecord] = []

    class Host(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    with listening(Host()):
        yield found


@contextmanager
def listening(handler: logging.Handler, level: int = logging.DEBUG) -> Iterator[None]:
    """A host's handler, for a while."""
    before = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before)


def test_an_event_is_a_line_with_its_fields(records: list[logging.LogRecord]) -> None:
    log(logging.WARNING, "decision", instrument="Nifty", sequence=3, why=None, latency_ms=1.5)
    (record,) = records
    assert record.getMessage() == ('decision instrument="Nifty" sequence=3 why=null latency_ms=1.5')
    assert (record.name, record.levelno, record.exc_info) == (
        "hrm_runtime",
        logging.WARNING,
        None,
    )


def test_an_event_without_fields_is_its_name(records: list[logging.LogRecord]) -> None:
    log(logging.CRITICAL, "breaker closed")
    (record,) = records
    assert record.getMessage() == "breaker closed"
    assert vars(record)["hrm"] == {"event": "breaker closed"}


def test_fields_are_in_the_record_as_they_are(records: list[logging.LogRecord]) -> None:
    fields = {"reason": Reason.STALE, "path": PurePosixPath("a/b"), "bars": (1, 2)}
    log(logging.INFO, "decision", **fields)
    (record,) = records
    assert vars(record)["hrm"] == {"event": "decision", **fields}
    assert record.getMessage() == 'decision reason="stale" path="a/b" bars=[1, 2]'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('two\nlines "quoted"', r'"two\nlines \"quoted\""'),
        ("50 %s %d %", '"50 %s %d %"'),
        (
            "\u0928\u093f\u092b\u094d\u091f\u0940",
            json.dumps("\u0928\u093f\u092b\u094d\u091f\u0940"),
        ),
        (Action.HOLD, "4"),
        (True, "true"),
        (float("nan"), "NaN"),
        (ValueError("odd"), '"odd"'),
    ],
    ids=["lines", "percent", "script", "action", "truth", "nan", "error"],
)
def test_whatever_a_field_holds_the_event_is_one_line(
    records: list[logging.LogRecord], value: Any, written: str
) -> None:
    log(logging.INFO, "decision", why=value)
    (record,) = records
    assert record.getMessage() == f"decision why={written}"
    assert record.getMessage().isascii()


def test_the_traceback_of_an_error_goes_with_it(records: list[logging.LogRecord]) -> None:
    error = ValueError("odd")
    log(logging.ERROR, "decision", error, reason="error")
    (record,) = records
    assert record.exc_info == (ValueError, error, None)
    assert "ValueError: odd" in logging.Formatter().format(record)
    assert vars(record)["hrm"] == {"event": "decision", "reason": "error"}


class Costly:
    """Counts how often it is written."""

    def __init__(self) -> None:
        self.written = 0

    def __str__(self) -> str:
        self.written += 1
        return "costly"


@pytest.mark.parametrize(("level", "times"), [(logging.INFO, 0), (logging.WARNING, 1)])
def test_nothing_is_written_that_nobody_reads(level: int, times: int) -> None:
    costly = Costly()
    with listening(logging.NullHandler(), logging.WARNING):
        log(level, "decision", costly=costly)
    assert costly.written == times


class Failing(logging.Handler):
    """A host's handler that cannot write."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.tried += 1
        raise OSError("disk full")


def test_what_a_handler_raises_stays_there(records: list[logging.LogRecord]) -> None:
    failing = Failing()
    with listening(failing):
        log(logging.CRITICAL, "killed", why="operator")
        log(logging.CRITICAL, "revived")
    assert failing.tried == 2
    assert [record.getMessage() for record in records] == ['killed why="operator"', "revived"]


def test_nothing_is_printed_unless_the_host_listens() -> None:
    program = """
import logging
from hrm_runtime.log import log
log(logging.CRITICAL, "killed", why="operator")
logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
log(logging.CRITICAL, "revived", by="operator")
log(logging.INFO, "not listened to")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", 'CRITICAL hrm_runtime: revived by="operator"\n')
