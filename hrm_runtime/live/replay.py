"""Decide again what a journal holds, and name the first thing that comes out differently.

Bars are added and rows computed as the engine did it, with the settings it had; every decision of
the network is made again and compared to the last bit, outputs included. Reasons that depend on a
clock or on somebody's hand (deadline, stale, killed, breaker) cannot be: they are held to what the
journal says of clock and hand. Answers from memory are held to what they repeat, refused
bars to the refusal, and all of them to HOLD. About errors, accounts that could not be read, and
what depends on events that are not there, nothing else can be said: they are counted.
"""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.artifact.decision import Decision, Reason, hold, reason_of
from hrm_runtime.artifact.model import Model
from hrm_runtime.artifact.segments import decisions
from hrm_runtime.artifact.unknown import unknown_names
from hrm_runtime.errors import BadInput, HrmError, JournalUnreadable
from hrm_runtime.journal.events import CAUSES, Change, Control, Line, Outputs
from hrm_runtime.journal.reader import JournalFile, Record, journal_files
from hrm_runtime.live.difference import Difference, Differs, compare, compare_outputs, named
from hrm_runtime.live.settings import LiveSettings
from hrm_runtime.live.stream import Stream
from hrm_runtime.live.streams import require_apart
from hrm_runtime.market.account import Account

__all__ = ["Difference", "Replayed", "replay"]

_RECOMPUTED: Final = frozenset({Reason.OK, Reason.WARMING_UP, Reason.GAP, Reason.NON_FINITE})

_ASKED: Final = ("datetime", *(one.name for one in fields(Account)))
"""Of a decision: what it is a function of, beside bars that are there already."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay found.

    Attributes:
        files, events: that were read.
        recomputed: decisions that were made again.
        checked: decisions that depend on a clock, a hand, memory or a refused bar.
        counted: decisions about which nothing more can be said than that they are HOLD.
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


def replay(path: str | Path, models: Sequence[Model]) -> Replayed:
    """Go through a journal from its beginning to its end, or to the first difference.

    Args:
        path: a journal's folder, or one of its files.
        models: the artifacts that decided.

    Raises:
        JournalUnreadable: no journal, or one of another version, damaged, locked, or not ours.
    """
    again = _Replay(models)
    for file in journal_files(path):
        if again.go_through(file).difference is not None:
            break
    return again.found


@dataclass
class _Life:
    """What an engine did so far, from its start, or from the first that is known of it."""

    whole: bool
    """Whether all artifacts are known that it had."""
    models: set[str] = field(default_factory=set)
    happened: set[Control] = field(default_factory=set)
    decided: dict[Line, Record] = field(default_factory=dict)


class _Replay:
    """Files gone through, one after another: every stream as it was at each event."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.found = Replayed()
        self._known = {model.id: model for model in models}
        self._life = _Life(whole=False)
        self._loaded: tuple[Any, ...] | None = None
        self._steps = {
            "artifact": self._artifact,
            "control": self._control,
            "feed": self._feed,
            "bar": self._bar,
            "decision": self._decision,
        }

    def go_through(self, file: Path) -> Replayed:
        """One more file; what was found so far."""
        self._count("files")
        self._streams: dict[Line, Stream] = {}
        self._refused: dict[Line, tuple[float, Reason]] = {}
        with closing(JournalFile(file)) as journal:
            try:
                self._settings = LiveSettings.from_document(journal.settings)
            except BadInput as error:
                raise JournalUnreadable(f"{file}: {error}") from error
            for record in journal.records():
                self._count("events")
                if record.event == 1 and record.table != "artifact":
                    raise record.unreadable("expected an artifact first")
                try:
                    self._steps[record.table](record)
                except Differs as differs:
                    self.found = replace(self.found, difference=named(record, differs))
                    break
        return self.found

    def _count(self, name: str, more: int = 1) -> None:
        self.found = replace(self.found, **{name: getattr(self.found, name) + more})

    # what happened around decisions

    def _artifact(self, record: Record) -> None:
        loaded = tuple(record[name] for name in ("at", "model_id", "name", "why"))
        if record.event == 1 and loaded != self._loaded:  # not of the engine before
            self._life = _Life(whole=record["why"] == "started")
        self._loaded = loaded
        self._contract: Contract = self._model(record).contract
        self._life.models.add(record["model_id"])

    def _model(self, record: Record) -> Model:
        model = self._known.get(record["model_id"])
        if model is None:
            raise Differs("artifact", record["model_id"], " and ".join(self._known) or "none")
        return model

    def _control(self, record: Record) -> None:
        self._life.happened.add(record.control)
        if record.control is Control.LOST:
            self._count("lost", record["number"])
            self._life.whole = False
            self._streams.clear()
            self._refused.clear()

    def _feed(self, record: Record) -> None:
        line, change, bars, now = record.line, record.change, record.bars, record["at"]
        if change is Change.SNAPSHOT:
            now = math.inf  # they were closed
            self._streams.pop(line, None)
        else:
            self._life.decided.pop(line, None)  # the engine forgets it
            if change is not Change.ADDED and line not in self._streams:
                raise Differs("whether the stream is there", change.name.lower(), "not there")
        if change is Change.DROPPED:
            del self._streams[line]
            return
        try:
            stream = self._stream(record)
            stream.change(change, bars, now)
            if change is Change.SNAPSHOT:
                self._streams[line] = stream  # it was kept before
            else:
                self._keep(line, stream)
        except Exception as error:  # as the engine
            raise Differs("whether bars are accepted", "accepted", error) from error

    def _bar(self, record: Record) -> None:
        recorded, recomputed = record.reason, Reason.OK
        if recorded is not Reason.OK:
            self._refused[record.line] = record["at"], recorded
        bar = record.bar
        if bar is None and recorded is Reason.OK:
            raise Differs("whether the bar is accepted", recorded, "no bar")
        if bar is None or recorded is Reason.ERROR:
            return  # nobody can say what it was
        try:
            stream = self._stream(record)
            stream.take(bar, record["at"])
            self._keep(record.line, stream)
        except Exception as error:  # as the engine
            recomputed = reason_of(error)
        if recomputed is not recorded:
            raise Differs("whether the bar is accepted", recorded, recomputed)

    def _stream(self, record: Record) -> Stream:
        """The stream of its line; a new one, to be kept, where the contract allows it."""
        known = self._streams.get(record.line)
        if known is not None:
            return known
        return self._settings.stream(record.line, self._contract)

    def _keep(self, line: Line, stream: Stream) -> None:
        """Keep a stream that has bars, as the engine does."""
        if line in self._streams or stream.bars is None:
            return
        self._settings.require_room(len(self._streams))
        require_apart(self._contract, self._streams, line)
        self._streams[line] = stream

    # decisions

    def _decision(self, record: Record) -> None:
        life, reason, account = self._life, record.reason, record.account
        if record["repeats"] is not None and reason not in CAUSES:
            self._repeated(record)
            return
        self._require_decider(record)
        refused = self._refused.pop(record.line, None) if account is None else None
        if reason in CAUSES:
            happened = CAUSES[reason] in life.happened
            unknown = not happened and record["repeats"] is not None  # in a file before
            self._held(record, f"{CAUSES[reason]} before", happened, unknown)
        elif reason is Reason.DEADLINE:
            late = record["latency_ms"] >= 1e3 * self._settings.deadline - 1
            self._held(record, f"a deadline of {self._settings.deadline:g} s that passed", late)
        elif refused is not None and refused[0] == record["at"]:
            if reason is not refused[1]:
                raise Differs("reason", reason, f"{refused[1]}, as of the bar")
            self._held(record)
        elif account is None and reason is Reason.OK:
            raise Differs("account", "none", "one that can be read")
        elif account is not None and reason is Reason.STALE:
            self._held(record, "a bar that is stale", self._stale(self._newest(record), record))
        elif account is not None and reason in _RECOMPUTED:
            self._again(record, account)
        else:
            self._held(record, unknown=True)
        if account is not None and reason is not Reason.STALE:
            life.decided[record.line] = record

    def _require_decider(self, record: Record) -> None:
        self._model(record)
        if self._life.whole and record["model_id"] not in self._life.models:
            raise Differs("artifact", record["model_id"], " or ".join(sorted(self._life.models)))

    def _held(
        self, record: Record, expected: str = "", holds: bool = True, unknown: bool = False
    ) -> None:
        """An answer that is not of the network: HOLD, for a reason that `expected` explains."""
        if not (holds or unknown):
            raise Differs("reason", record.reason, f"expected {expected}")
        compare(record.decision, hold(record.reason, record["model_id"]))
        self._count("counted" if unknown else "checked")

    def _repeated(self, record: Record) -> None:
        before = self._life.decided.get(record.line)
        if before is None or before["sequence"] != record["repeats"]:
            self._repeated_unseen(record)
            return
        for name in _ASKED:
            if record[name] != before[name]:
                raise Differs(f"{name} of what it repeats", record[name], before[name])
        compare(record.decision, before.decision)
        self._count("checked")

    def _repeated_unseen(self, record: Record) -> None:
        """What it repeats is not there; the bars are, for any others would have ended memory."""
        account, model = record.account, self._known.get(record["model_id"])
        if account is not None and model is not None and record.reason in _RECOMPUTED:
            made, _ = _made(model, self._newest(record), record, account)
            compare(record.decision, made)
            self._count("recomputed")
        elif record.reason is Reason.OK:
            self._count("counted")  # its artifact is not there either
        else:
            self._held(record, unknown=True)

    def _newest(self, record: Record) -> Stream:
        """The stream of a decision, whose newest bar is that of the decision."""
        stream = self._streams.get(record.line)
        bars = None if stream is None else stream.bars
        if stream is None or bars is None or bars.datetime[-1] != record["datetime"]:
            newest = "none" if bars is None else int(bars.datetime[-1])
            raise Differs("newest bar", record["datetime"], newest)
        return stream

    def _stale(self, stream: Stream, record: Record) -> bool:
        latest = self._settings.latest(record["timeframe"], stream.seconds)
        return not stream.age(record["at"]) <= latest

    def _again(self, record: Record, account: Account) -> None:
        """Make the decision once more, and hold it to what was answered."""
        model, stream = self._model(record), self._newest(record)
        if self._stale(stream, record):
            raise Differs("reason", record.reason, Reason.STALE)
        made, outputs = _made(model, stream, record, account)
        compare(record.decision, made)
        compare_outputs(record, outputs)
        self._count("recomputed")


def _made(
    model: Model, stream: Stream, record: Record, account: Account
) -> tuple[Decision, Outputs | None]:
    """The decision, and the outputs of its last pass if the graph was run."""
    instrument, timeframe = record.line
    try:
        stream.require_window()
        passes = model.run_segments(
            *model.inputs(stream.rows, account, instrument=instrument, timeframe=timeframe)
        )
    except HrmError as error:
        return hold(reason_of(error), model.id), None
    unknown = unknown_names(model.contract, instrument, timeframe)
    made = decisions(passes, [account], model.id, unknown=[unknown])[0]
    return made, {name: output[0] for name, output in passes[made.segments - 1].items()}
