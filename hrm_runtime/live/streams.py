"""The streams of a live engine, and what each was asked last."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.artifact.decision import Reason
from hrm_runtime.artifact.unknown import told_unknown
from hrm_runtime.errors import BadInput
from hrm_runtime.journal.events import Line
from hrm_runtime.live.health import StreamHealth
from hrm_runtime.live.jobs import Ask
from hrm_runtime.live.settings import LiveSettings
from hrm_runtime.live.stream import Stream
from hrm_runtime.locks import reentrant
from hrm_runtime.log import log
from hrm_runtime.market.account import Account
from hrm_runtime.market.instruments import UNKNOWN
from hrm_runtime.market.names import nearest_or_some

_NAMED: Final = 20
"""Streams that an error names."""


@dataclass(eq=False)
class Series:
    """A stream and the last ask at its newest bar that could be decided.

    The worker that has its line changes these; `reason` and `message`, of the last answer, are
    written by whoever answered, `unknown` (what is told of names the artifact does not know) by
    whoever exchanges the artifact, too.
    """

    stream: Stream
    asked: Ask | None = None
    account: Account | None = None
    reason: Reason | None = None
    message: str | None = None
    unknown: str | None = None
    doubted: bool = False
    """Whether its host was told that its capital may be its free cash."""

    def remembered(self, stamp: int, account: Account) -> Ask | None:
        """The ask of the same bar and account, if it was answered."""
        ask = self.asked
        if ask is None or (ask.stamp, ask.read) != (stamp, account):
            return None
        return ask if ask.answer.done() and not ask.answer.cancelled() else None

    def health(self, now: float) -> StreamHealth:
        """How it is; it must have a bar."""
        bars = self.stream.bars
        assert bars is not None, "series without are not kept"
        return StreamHealth(
            newest=int(bars.datetime[-1]),
            age_s=self.stream.age(now),
            bars=len(bars),
            ready=self.stream.ready,
            reason=self.reason,
            message=self.message,
            unknown=self.unknown,
        )


class Streams:
    """Every series that has bars, by (instrument, timeframe), all known to one contract.

    Any thread may ask for one; its lock guards which there are, and the contract.

    Args:
        settings: how many there may be, and how a new one is made.
        contract: of the artifact that decides.
    """

    def __init__(self, settings: LiveSettings, contract: Contract) -> None:
        self._settings = settings
        self._contract = contract
        self._series: dict[Line, Series] = {}
        self._changing = reentrant()
        for name in sorted(settings.markets.keys() - contract.instruments.keys()):
            near = nearest_or_some(name, contract.instruments.keys() - {UNKNOWN})
            why = f"markets: instrument {name!r} is unknown to the artifact: {near}"
            log(logging.WARNING, "unknown names", instrument=name, why=why)

    def __len__(self) -> int:
        return len(self._series)

    def items(self) -> list[tuple[Line, Series]]:
        """Those that there are just now."""
        return list(self._series.items())

    def get(self, line: Line) -> Series | None:
        """That of `line`; None where there is none yet."""
        return self._series.get(line)

    def meant(self, line: Line) -> Line:
        """The line of the stream that names mean, whatever the spelling of the timeframe.

        That is one that there is, also where the artifact before called the timeframe otherwise;
        else the one of the names as the artifact has them.
        """
        return _meant(self._contract, self._series, line)

    @property
    def contract(self) -> Contract:
        """Of the artifact that decides; the journal has it before what is held to it."""
        return self._contract

    def of(self, line: Line, contract: Contract) -> Series:
        """That of `line`; a new one, to be kept, where `contract` allows it.

        Raises:
            UnknownInstrument, UnknownTimeframe: it does not.
        """
        known = self._series.get(line)
        return Series(self._settings.stream(line, contract)) if known is None else known

    def keep(self, line: Line, series: Series) -> None:
        """Keep one that has bars: names that never had one take no place.

        Raises:
            BadInput: there are as many as there may be, or the contract, another one meanwhile,
                has other seconds for the timeframe or means one that is there.
            UnknownInstrument, UnknownTimeframe: that contract does not allow it.
        """
        if line in self._series or series.stream.bars is None:
            return
        with self._changing:
            self._settings.require_room(len(self._series))
            require_known(self._contract, line, series)
            require_apart(self._contract, self._series, line)
            series.unknown = told_unknown(self._contract, *line) or None
            self._series[line] = series
        _warn(line, series)

    def there(self, line: Line) -> Series:
        """That of `line`, which must be there.

        Raises:
            BadInput: it is not; naming those that are.
        """
        known = self._series.get(line)
        if known is None:
            names = [" ".join(each) for each in sorted(self._series)]
            more = len(names) - _NAMED
            told = ", ".join(names[:_NAMED]) + f" and {more} more" * (more > 0)
            raise BadInput(
                f"stream: expected one that has bars ({told or 'none has'}); found "
                f"{' '.join(line)!r}: mend the name, or feed it first"
            )
        return known

    @contextmanager
    def in_order(self, line: Line) -> Iterator[None]:
        """Where that of `line` is not there, let none come or go meanwhile.

        What is recorded within stands in the order in which streams took and left their places.
        """
        with nullcontext() if line in self._series else self._changing:
            yield

    @contextmanager
    def dropping(self, line: Line) -> Iterator[Series]:
        """Forget that of `line`; none takes its place before what is done within.

        Raises:
            BadInput: as `there`.
        """
        with self._changing:
            dropped = self.there(line)
            del self._series[line]
            yield dropped

    @contextmanager
    def held_to(self, contract: Contract) -> Iterator[None]:
        """Hold those that there are to `contract`, later ones too; none comes in meanwhile.

        Raises:
            BadInput, UnknownInstrument, UnknownTimeframe: as `keep`; nothing has changed.
        """
        with self._changing:
            for line, series in self._series.items():
                require_known(contract, line, series)
            self._contract = contract
            yield
            became = []
            for line, series in self._series.items():
                before, series.unknown = series.unknown, told_unknown(contract, *line) or None
                became += [(line, series)] if before is None else []
        for line, series in became:
            _warn(line, series)


def require_known(contract: Contract, line: Line, series: Series) -> None:
    """Hold a series to the names of `contract`.

    Raises:
        BadInput: bars of its timeframe have another length.
        UnknownInstrument, UnknownTimeframe: it is not allowed.
    """
    contract.instrument(line[0])
    seconds = contract.timeframe_seconds(line[1])
    if seconds != series.stream.seconds:
        raise BadInput(
            f"model: expected bars of {series.stream.seconds} s in timeframe {line[1]!r} as "
            f"now, found {seconds} s"
        )


def require_apart(contract: Contract, lines: Collection[Line], line: Line) -> None:
    """Hold a new line to be another series than those of `lines`.

    Raises:
        BadInput: `contract` means one of them by it.
    """
    meant = _meant(contract, lines, line)
    if meant in lines:
        raise BadInput(
            f"stream: expected another than there are, found {' '.join(line)!r}, which began "
            f"meanwhile as {' '.join(meant)!r}: call again"
        )


def _meant(contract: Contract, lines: Collection[Line], line: Line) -> Line:
    """As `Streams.meant`, among `lines`."""
    if line in lines:
        return line
    instrument, given = line
    meant = contract.timeframe(given)
    if (instrument, meant) in lines:
        return instrument, meant
    for other in tuple(lines):
        if other[0] == instrument and contract.timeframe(other[1]) == meant:
            return other
    return instrument, meant


def _warn(line: Line, series: Series) -> None:
    """Log, once, that a stream's names are unknown to what decides for it."""
    if series.unknown is not None:
        log(
            logging.WARNING,
            "unknown names",
            instrument=line[0],
            timeframe=line[1],
            why=series.unknown,
        )
