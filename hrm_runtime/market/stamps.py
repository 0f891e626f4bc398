"""Stamps: moments in epoch seconds UTC, what is refused as one, and how dates become them."""

from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

EARLIEST_STAMP: Final = 31_536_000
"""A stamp before (1971) is no moment of a market but a counter, or seconds divided once more."""

LATEST_STAMP: Final = 10**11
"""A stamp beyond (the year 5138) is milliseconds or worse, not epoch seconds."""

_FINER: Final = (
    (10**14, "milliseconds", 3),
    (10**17, "microseconds", 6),
    (10**20, "nanoseconds", 9),
)
"""Below which stamps beyond are in what, of which so many decimals make a second."""

TO_SECONDS: Final = ".dt.as_unit('s').astype('int64')"
"""Makes epoch seconds of a pandas column of dates that know their zone."""

LOCALISED: Final = ".dt.tz_localize('Asia/Kolkata')"
"""Tells a pandas column of dates the zone they are in."""


def moment(stamp: int) -> str:
    """Epoch seconds, to be read."""
    return f"{datetime.fromtimestamp(stamp, UTC):%Y-%m-%d %H:%M} UTC"


def dates_to_seconds(zoned: bool) -> str:
    """The line of pandas that makes epoch seconds of a column of dates in a frame.

    Args:
        zoned: whether the dates say their zone; else it is to be said.
    """
    column = "frame['datetime']"
    if zoned:
        return f"{column} = pandas.to_datetime({column}, utc=True){TO_SECONDS}"
    return (
        f"{column} = pandas.to_datetime({column}){LOCALISED}{TO_SECONDS}, with the zone of the "
        "market's clock"
    )


def not_stamps(column: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where a column holds something else than whole epoch seconds from 1971 to 5138."""
    within = (column >= EARLIEST_STAMP) & (column < LATEST_STAMP)
    bad: npt.NDArray[np.bool_] = ~(within & (column == np.floor(column)))
    return bad


def bad_stamp(stamp: float, where: str = "") -> str:
    """What was expected, what was found, and what to do."""
    looks = ""
    if stamp >= LATEST_STAMP:
        looks = next((f"{name}: divide by 10**{n}" for most, name, n in _FINER if stamp < most), "")
    elif 0 <= stamp < EARLIEST_STAMP:
        looks = (
            "a counter, or seconds divided once too often: divide milliseconds by 10**3, "
            "nanoseconds by 10**9"
        )
    return (
        f"expected datetime in whole epoch seconds (UTC) from {EARLIEST_STAMP} (1971) and below "
        f"{LATEST_STAMP}; found {stamp:.15g}{where}{f', which looks like {looks}' * bool(looks)}"
    )
