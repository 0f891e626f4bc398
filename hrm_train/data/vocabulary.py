"""Instruments and timeframes by name: their ids, which are rows of the tables, and their facts."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from hrm_runtime.market.bars import Bars
from hrm_runtime.market.instruments import UNKNOWN, Instrument, Timeframe
from hrm_runtime.market.names import nearest_or_some, not_known, timeframe_of
from hrm_train.differences import differences
from hrm_train.errors import DataInvalid, SettingsInvalid
from hrm_train.settings import Embeddings, Settings


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Instruments and timeframes by name, with their ids and facts."""

    instruments: dict[str, Instrument]
    timeframes: dict[str, Timeframe]

    @classmethod
    def of(cls, settings: Settings, series: Iterable[tuple[str, str]]) -> "Vocabulary":
        """Ids from 1 in sorted order of name; instrument 0 is `unknown`.

        Raises:
            DataInvalid, SettingsInvalid: as `extended`.
        """
        empty = cls(instruments={UNKNOWN: _facts(settings, UNKNOWN, 0)}, timeframes={})
        return empty.extended(settings, series)

    def extended(self, settings: Settings, series: Iterable[tuple[str, str]]) -> "Vocabulary":
        """These, unchanged, then the names of `series` that are new: the next ids, in sorted order.

        Args:
            settings: give the facts of new names.
            series: (instrument, timeframe) each; a timeframe in any spelling is one.

        Raises:
            DataInvalid: an instrument or timeframe is called `unknown`.
            SettingsInvalid: the seconds of a new timeframe are not declared.
        """
        names = list(series)
        instruments = {instrument for instrument, _ in names}
        timeframes = {self.timeframe_name(settings, timeframe) for _, timeframe in names}
        if UNKNOWN in instruments | timeframes:
            raise DataInvalid(f"expected series by name; {UNKNOWN!r} stands for all others")
        return Vocabulary(
            instruments=self.instruments
            | {
                name: _facts(settings, name, number)
                for number, name in enumerate(
                    sorted(instruments - self.instruments.keys()), start=len(self.instruments)
                )
            },
            timeframes=self.timeframes
            | {
                name: Timeframe(id=number, seconds=settings.seconds(name))
                for number, name in enumerate(
                    sorted(timeframes - self.timeframes.keys()), start=1 + len(self.timeframes)
                )
            },
        )

    def differences(self, other: "Vocabulary", called: tuple[str, str], ids: bool = True) -> str:
        """Names and facts that differ, in words as `hrm_train.differences`; ids where no names do.

        Args:
            other: what to compare with.
            called: what this and the other are called.
            ids: whether they matter.
        """
        facts = differences(_without_ids(self), _without_ids(other), called)
        if facts or not ids:  # a name more or less moves the ids of all others
            return facts
        return differences(asdict(self), asdict(other), called)

    def require_rows(self, limits: Embeddings) -> None:
        """Hold the number of names to the rows of the tables.

        Raises:
            DataInvalid: there are more names.
        """
        for name, most, count in (
            ("max_instruments", limits.max_instruments, len(self.instruments) - 1),
            ("max_timeframes", limits.max_timeframes, len(self.timeframes)),
        ):
            if count > most:
                raise DataInvalid(f"embeddings.{name}: expected at least {count}, was {most}")

    def refusal(self, embeddings: Embeddings, instrument: str, timeframe: str) -> str | None:
        """Why a network of these settings decides nothing for such names; None where it does."""
        for kind, name, known, allowed in (
            ("instrument", instrument, self.instruments, embeddings.allow_unknown_instruments),
            ("timeframe", timeframe, self.timeframes, embeddings.allow_unknown_timeframes),
        ):
            if name not in known and not allowed:
                told = not_known(kind, name, known.keys() - {UNKNOWN}, "the checkpoint")
                return f"{told}; nor does it allow unknown ones"
        return None

    def instrument(self, name: str) -> Instrument:
        """The facts of `name`, those of `unknown` where it is not in the vocabulary."""
        return self.instruments.get(name, self.instruments[UNKNOWN])

    def timeframe(self, settings: Settings, name: str) -> Timeframe:
        """The timeframe `name`, with id 0 where it is not in the vocabulary."""
        known = self.timeframes.get(self.timeframe_name(settings, name))
        return known or Timeframe(id=0, seconds=settings.seconds(name))

    def timeframe_name(self, settings: Settings, name: str) -> str:
        """What the timeframe `name` is called: here, else in the settings, as `timeframe_of`."""
        declared = {known: one.seconds for known, one in settings.timeframes.items()}
        meant = name if name in declared else self.own_timeframe(name)
        return meant if meant in self.timeframes else timeframe_of(name, declared)

    def own_timeframe(self, name: str) -> str:
        """What the timeframe `name` is called here, as `timeframe_of`."""
        return timeframe_of(name, {known: one.seconds for known, one in self.timeframes.items()})

    def named(
        self, settings: Settings, series: Mapping[tuple[str, str], Bars]
    ) -> dict[tuple[str, str], Bars]:
        """`series` by names under which each timeframe has one spelling.

        Raises:
            DataInvalid: two are then one.
        """
        found: dict[tuple[str, str], Bars] = {}
        given: dict[tuple[str, str], str] = {}
        for (instrument, timeframe), one in series.items():
            name = instrument, self.timeframe_name(settings, timeframe)
            if name in found:
                raise DataInvalid(
                    f"{instrument}: expected one series of a timeframe, found {given[name]!r} and "
                    f"{timeframe!r}, which are one; remove a file"
                )
            found[name], given[name] = one, timeframe
        return found


NAMELESS: Final = Vocabulary(instruments={}, timeframes={})
"""Of no names: what settings call a timeframe, `NAMELESS.timeframe_name` tells."""


def require_names(
    settings: Settings, series: Iterable[tuple[str, str]], known: Vocabulary | None = None
) -> None:
    """Refuse facts of a name that nothing has: it is probably misspelt, and another lacks them.

    Args:
        settings: may have facts of `unknown` too.
        series: (instrument, timeframe) each of the data, also of those too short to train on.
        known: of a checkpoint to go on from.

    Raises:
        SettingsInvalid: one line per name, with the closest that there is.
    """
    names = list(series)
    called = NAMELESS if known is None else known
    instruments = {instrument for instrument, _ in names}
    timeframes = {called.timeframe_name(settings, timeframe) for _, timeframe in names}
    if known is not None:
        instruments |= known.instruments.keys()
        timeframes |= known.timeframes.keys()
    problems = [
        f"{section}.{name}: expected a name of the data"
        + ("" if known is None else " or of the checkpoint")
        + f"; {nearest_or_some(name, there - {UNKNOWN})}; correct it, or remove these facts"
        for section, declared, there in (
            ("instruments", settings.instruments, instruments),
            ("timeframes", settings.timeframes, timeframes),
        )
        for name in declared
        if name not in there and name != UNKNOWN
    ]
    if problems:
        raise SettingsInvalid("\n".join(problems))


def _without_ids(vocabulary: Vocabulary) -> dict[str, Any]:
    document = asdict(vocabulary)
    for names in document.values():
        for facts in names.values():
            del facts["id"]
    return document


def _facts(settings: Settings, name: str, number: int) -> Instrument:
    facts = settings.instrument_facts(name)
    return Instrument(
        id=number,
        type=facts.type,
        lot_size=facts.lot_size,
        tick_size=facts.tick_size,
        premium_min=facts.option_premium_range[0],
        premium_max=facts.option_premium_range[1],
    )
