"""Names: which bars a timeframe's means, and what a name that nobody knows was meant to be."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

_DAY: Final = 86_400

WEEK: Final = 7 * _DAY
"""Seconds; the longest timeframe. Months have no length: they begin 28 to 31 days apart."""

SPELLINGS: Final = "5, 5m, 5min, 1h, D, 1d or W"
"""Some that `seconds_of` understands, for messages."""

_UNITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "t", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "wk", "week", "weeks"), WEEK),
}
"""Seconds by unit, in any case but for M, which is a month where m is a minute."""

_COUNT_FIRST: Final = re.compile("(?:([0-9]{1,6}) ?)?([A-Za-z]+)")

_UNIT_FIRST: Final = re.compile("([SMHDW])([0-9]{1,6})")
"""M5, H1: there M is a minute."""

_SEPARATORS: Final = re.compile(r"[\s_/.:-]+")


def seconds_of(timeframe: str) -> int | None:
    """Length of a bar that a timeframe's name says, a week at most; None where it says none.

    A number is one of minutes. With a unit it is spelt as feeds and libraries do: `5m`, `5min`,
    `5T`, `5minute`, `M5`, `30s`, `1h`, `H1`, `D`, `1d`, `day`, `W`, `1w`. `1M` is a month.
    """
    if re.fullmatch("[0-9]{1,6}", timeframe):
        count, unit = timeframe, "m"
    elif found := _UNIT_FIRST.fullmatch(timeframe):
        unit, count = found.groups()
    elif (found := _COUNT_FIRST.fullmatch(timeframe)) and timeframe != "m" and found[2] != "M":
        count, unit = found.groups()
    else:
        return None
    seconds = int(count or 1) * _UNITS.get(unit.casefold(), 0)
    return seconds if 0 < seconds <= WEEK else None


def timeframe_of(name: str, known: Mapping[str, int]) -> str:
    """What a timeframe is called among others: as given, or by the one of its length.

    Args:
        name: in any spelling of `seconds_of`, or one of `known`.
        known: seconds by name.

    Returns:
        `name` where it is known; else the only one that is as long; else the usual spelling of
        its length (minutes, D, W or seconds); else, where it says none, `name`.
    """
    seconds = None if name in known else seconds_of(name)
    if seconds is None:
        return name
    alike = [other for other, length in known.items() if length == seconds]
    if len(alike) == 1:
        return alike[0]
    usual = _usual(seconds)
    return usual if known.get(usual, seconds) == seconds else name


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What a name that is not known was probably meant to be, in words; None where nothing is near.

    A timeframe that says a length is not misspelt.
    """
    names = sorted(known)
    for alike, how in (
        (str.casefold, ", which differs in upper and lower case"),
        (_bare, ", which is spelt otherwise"),
    ):
        for other in names:
            if alike(other) == alike(name):
                return f"the closest is {other}{how}"
    folded = {other.casefold(): other for other in names if seconds_of(name) is None}
    close = get_close_matches(name.casefold(), folded, n=1)
    return f"the closest is {folded[close[0]]}" if close else None


def nearest_or_some(name: str, known: Iterable[str]) -> str:
    """`nearest`; a few of those that are known where nothing is near."""
    names = sorted(known)
    some = f"known are {', '.join(names[:5]) or 'none'}" + ", ..." * (len(names) > 5)
    return nearest(name, names) or some


def not_known(kind: str, name: str, known: Iterable[str], who: str) -> str:
    """What to tell of an instrument's or a timeframe's name that is refused.

    Args:
        who: does not know it.
    """
    names = sorted(known)
    close = nearest(name, names)
    return (
        f"{kind}: expected one of {', '.join(names)}; found {name!r}, which {who} does not know"
        + (f"; {close}" if close else "")
    )


def _bare(name: str) -> str:
    """A name without what parts its words, in lower case."""
    return _SEPARATORS.sub("", name.casefold())


def _usual(seconds: int) -> str:
    """The spelling of a length that `timeframe_of` gives."""
    for unit, length in (("W", WEEK), ("D", _DAY)):
        if seconds == length:
            return unit
    return f"{seconds}s" if seconds % 60 else str(seconds // 60)
