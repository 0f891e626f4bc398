"""What comes out differently when a journal is decided again, and how it is named."""

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from hrm_runtime.artifact.decision import Decision
from hrm_runtime.journal.events import STATES, Outputs, packed
from hrm_runtime.journal.reader import Record
from hrm_runtime.market.actions import Action

_COMPARED: Final = (
    "reason",
    *(one.name for one in fields(Decision) if one.compare and one.name != "reason"),
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first thing that came out differently, and where.

    Attributes:
        file, event: where it is recorded.
        sequence: of the decision, if it is one.
        instrument, timeframe, datetime: of the bar, as far as it has them.
        what: differs.
        recorded, recomputed: as text.
    """

    file: str
    event: int
    sequence: int | None
    instrument: str | None
    timeframe: str | None
    datetime: int | None
    what: str
    recorded: str
    recomputed: str


class Differs(Exception):
    """Something came out differently."""

    def __init__(self, what: str, recorded: object, recomputed: object) -> None:
        super().__init__(what)
        self.what, self.recorded, self.recomputed = what, _text(recorded), _text(recomputed)


def named(record: Record, differs: Differs) -> Difference:
    """What came out differently at `record`, with where that is."""
    return Difference(
        file=record.file.name,
        event=record.event,
        sequence=record.values.get("sequence"),
        instrument=record.values.get("instrument"),
        timeframe=record.values.get("timeframe"),
        datetime=record.values.get("datetime"),
        what=differs.what,
        recorded=differs.recorded,
        recomputed=differs.recomputed,
    )


def compare(recorded: Decision, recomputed: Decision) -> None:
    """Hold a decision to what was recorded, all that makes it one.

    Raises:
        Differs: the first of its values that is another; its reason is looked at first.
    """
    for name in _COMPARED:
        expected, found = getattr(recorded, name), getattr(recomputed, name)
        if expected != found:
            raise Differs(name, expected, found)


def compare_outputs(record: Record, outputs: Outputs | None) -> None:
    """Hold the outputs as they were packed to `outputs`, bit by bit; None: no graph was run.

    Raises:
        Differs: the first output by name that is another, or the states.
    """
    small, states = (None, None) if outputs is None else packed(outputs)
    recorded = record["outputs"]
    if outputs is not None and recorded is not None and len(recorded) == len(small or b""):
        first = 0
        for name in sorted(set(outputs) - set(STATES)):
            made = np.asarray(outputs[name], "<f4")
            given = recorded[first : first + made.nbytes]
            first += made.nbytes
            if given != made.tobytes():
                raise Differs(name, _numbers(np.frombuffer(given, "<f4")), _numbers(made))
    elif recorded != small:
        raise Differs("outputs", _shown(recorded), _shown(small))
    if record["states"] != states:
        raise Differs("states", _shown(record["states"]), _shown(states))


def _text(value: object) -> str:
    return value.name if isinstance(value, Action) else str(value)


def _numbers(array: Any) -> str:
    return " ".join(str(number) for number in array.ravel())


def _shown(value: bytes | None) -> str:
    return "none" if value is None else value.hex()
