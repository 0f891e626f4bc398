"""Decide again what a journal holds, and name the first thing that comes out differently.

Bars are added and rows computed as the engine did it, with the settings it had; every decision of
the network is made again and compared to the last bit, outputs included. Reasons that depend on a
clock or on somebody's hand (deadline, stale, killed, breaker) cannot be: they are held to what the
journal says of clock and hand. Answers from memory are held to what they repeat, refused bars to
the refusal. Errors, and accounts that could not be read, are counted.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from hrm_runtime.account import Account
from hrm_runtime.decision import Decision, Reason, hold
from hrm_runtime.engine import LiveSettings, reason_of
from hrm_runtime.errors import HrmError, Untrusted
from hrm_runtime.journal import Control, Line, packed
from hrm_runtime.journal_reader import JournalFile, Record, journal_files
from hrm_runtime.model import Model, Outputs, decisions, network_inputs
from hrm_runtime.stream import Stream

_BY_HAND: Final[Mapping[Reason, Control]] = {
    Reason.KILLED: Control.KILLED,
    Reason.BREAKER: Control.BREAKER_OPENED,
}
"""What must have happened before a decision with such a reason."""

_RECOMPUTED: Final = frozenset({Reason.OK, Reason.WARMING_UP, Reason.GAP, Reason.NON_FINITE})

_COMPARED: Final = tuple(field.name for field in fields(Decision) if field.compare)


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


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay found.

    Attributes:
        files, events: that were read.
        recomputed: decisions that were made again.
        checked: decisions that depend on a clock, a hand or memory.
        counted: decisions about which nothing can be said again.
        lost: events that the journal says it could not write.
        difference: the first one; the replay ends there.
    """

    files: int = 0
    events: int = 0
    recomputed: int = 0
    checked: int = 0
    counted: int = 0
    lost: int = 0
    difference: Difference | None = None


class _Differs(Exception):
    """Something came out differently."""

    def __init__(self, what: str, recorded: object, recomputed: object) -> None:
        super().__init__(what)
        self.what, self.recorded, self.recomputed = what, str(recorded), str(recomputed)


def replay(path: str | Path, models: Sequence[Model]) -> Replayed:
    """Go through a journal from its beginning to its end, or to the first difference.

    Args:
        path: a journal's folder, or one of its files.
        models: the artifacts that decided.

    Raises:
        JournalUnreadable: no journal, or one of another version, damaged, locked, or not ours.
    """
    known = {model.id: model for model in models}
    found = Replayed()
    for file in journal_files(path):
        found = _Replay(file, known, replace(found, files=found.files + 1)).run()
        if found.difference is not None:
            break
    return found


class _Replay:
    """One file gone through: every stream as it was at each event."""

    def __init__(self, file: Path, known: Mapping[str, Model], found: Replayed) -> None:
        self._file = file
        self._known = known
        self._found = found
        self._streams: dict[Line, Stream] = {}
        self._refused: dict[Line, Reason | None] = {}
        self._decided: dict[Line, Record] = {}
        self._happened: set[Control] = set()

    def run(self) -> Replayed:
        steps = {
            "artifact": self._artifact,
            "control": self._control,
            "feed": self._feed,
            "bar": self._bar,
            "decision": self._decision,
        }
        with closing(JournalFile(self._file)) as journal:
            self._settings = LiveSettings.from_document(journal.settings)
            for record in journal.records():
                self._count("events")
                try:
                    steps[record.table](record)
                except _Differs as differs:
                    return replace(self._found, difference=self._named(record, differs))
        return self._found

    def _count(self, name: str, more: int = 1) -> None:
        self._found = replace(self._found, **{name: getattr(self._found, name) + more})

    def _named(self, record: Record, differs: _Differs) -> Difference:
        return Difference(
            file=self._file.name,
            event=record.event,
            sequence=record.values.get("sequence"),
            instrument=record.values.get("instrument"),
            timeframe=record.values.get("timeframe"),
            datetime=record.values.get("datetime"),
            what=differs.what,
            recorded=differs.recorded,
            recomputed=differs.recomputed,
        )

    def _model(self, record: Record) -> Model:
        model = self._known.get(record["model_id"])
        if model is None:
            raise _Differs("artifact", record["model_id"], " and ".join(self._known) or "none")
        return model

    def _artifact(self, record: Record) -> None:
        self._contract = self._model(record).contract

    def _control(self, record: Record) -> None:
        self._happened.add(record.control)
        if record.control is Control.LOST:
            self._count("lost", record["number"])
            self._streams.clear()

    def _feed(self, record: Record) -> None:
        if record["snapshot"]:
            self._streams.pop(record.line, None)
        try:
            stream = self._stream(record.line)
            stream.feed(record.bars, math.inf)
        except HrmError as error:
            raise _Differs("whether bars are accepted", "accepted", error) from error
        self._streams[record.line] = stream

    def _bar(self, record: Record) -> None:
        recorded, recomputed = record.reason, Reason.OK
        self._refused[record.line] = None if recorded is Reason.OK else recorded
        if record.bar is None:
            return
        try:
            stream = self._stream(record.line)
            stream.take(record.bar, record["at"])
        except HrmError as error:
            recomputed = reason_of(error)
        else:
            self._streams[record.line] = stream
        if recomputed is not recorded:
            raise _Differs("whether the bar is accepted", recorded, recomputed)

    def _stream(self, line: Line) -> Stream:
        """The stream of `line`; a new one where it has none."""
        known = self._streams.get(line)
        if known is not None:
            return known
        self._contract.instrument(line[0])
        seconds = self._contract.timeframe_seconds(line[1])
        settings = self._settings
        return Stream(seconds, settings.hours, self._contract, settings.clock_skew)

    def _decision(self, record: Record) -> None:
        reason = record.reason
        if reason in _BY_HAND:
            self._check("what must have happened before", _BY_HAND[reason] in self._happened)
        elif record["repeats"] is not None:
            self._repeated(record)
        elif reason is Reason.DEADLINE:
            late = record["latency_ms"] >= 1e3 * self._settings.deadline - 1
            self._check("whether the deadline had passed", late)
        elif (refused := self._refused.get(record.line)) is not None:
            self._check("reason, as of the bar", reason is refused)
        elif reason is Reason.STALE:
            self._stale(record)
        elif reason in _RECOMPUTED and record.account is not None:
            self._again(record, record.account)
        else:
            self._count("counted")

    def _check(self, what: str, holds: bool) -> None:
        if not holds:
            raise _Differs(what, "yes", "no")
        self._count("checked")

    def _repeated(self, record: Record) -> None:
        before = self._decided.get(record.line)
        if before is not None and before["sequence"] == record["repeats"]:
            _compare(record.decision, before.decision)
            self._count("checked")
        else:
            self._count("counted")  # what it repeats is in a file before

    def _stale(self, record: Record) -> None:
        stream = self._streams[record.line]
        latest = self._settings.latest(record["timeframe"], stream.seconds)
        self._check("whether the bar was stale", not stream.age(record["at"]) <= latest)

    def _again(self, record: Record, account: Account) -> None:
        """Make the decision once more, and hold it to what was answered."""
        model, stream = self._model(record), self._streams.get(record.line)
        if stream is None or stream.bars is None:
            raise _Differs("bars", "some", "none")
        if (newest := int(stream.bars.datetime[-1])) != record["datetime"]:
            raise _Differs("newest bar", record["datetime"], newest)
        outputs: Outputs | None = None
        try:
            stream.require_window()
        except Untrusted as error:
            made = hold(reason_of(error), model.id)
        else:
            contract = model.contract
            passes = model.run_segments(
                *network_inputs(
                    contract,
                    stream.rows,
                    account,
                    contract.instrument(record["instrument"]),
                    contract.timeframe_id(record["timeframe"]),
                )
            )
            made = decisions(passes, [account], model.id)[0]
            outputs = {name: output[0] for name, output in passes[made.segments - 1].items()}
        _compare(record.decision, made)
        small, states = (None, None) if outputs is None else packed(outputs)
        if record["outputs"] != small:
            raise _Differs("outputs", _shown(record["outputs"]), _shown(small))
        if record["states"] != states:
            raise _Differs("states", _shown(record["states"]), _shown(states))
        self._decided[record.line] = record
        self._count("recomputed")


def _compare(recorded: Decision, recomputed: Decision) -> None:
    for name in _COMPARED:
        expected, found = getattr(recorded, name), getattr(recomputed, name)
        if expected != found:
            raise _Differs(name, expected, found)


def _shown(value: bytes | None) -> str:
    return "none" if value is None else value.hex()
