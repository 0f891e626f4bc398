"""Three bars, to be changed in one place or another."""

from typing import Any

import numpy as np

from hrm_runtime import Bars

COLUMNS: dict[str, list[float]] = {
    "datetime": [31_536_300, 31_536_600, 31_536_900],
    "open": [10.0, 11.0, 12.0],
    "high": [11.5, 12.5, 13.5],
    "low": [9.5, 10.5, 11.5],
    "close": [11.0, 12.0, 13.0],
    "volume": [0.0, 7.0, 9.0],
}

NAMES = tuple(COLUMNS)


def bars(**changes: Any) -> Bars:
    return Bars(**{**COLUMNS, **changes})


def content(series: Bars) -> dict[str, list[float]]:
    return {name: getattr(series, name).tolist() for name in NAMES}


def assert_equal(found: Bars, expected: Bars) -> None:
    assert (found.volume is None) == (expected.volume is None)
    for name in NAMES if expected.volume is not None else NAMES[:-1]:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)
