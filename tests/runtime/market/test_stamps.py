import numpy as np
import pytest

from hrm_runtime.market.stamps import (
    EARLIEST_STAMP,
    bad_stamp,
    dates_to_seconds,
    moment,
    not_stamps,
)


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        (0, "1970-01-01 00:00 UTC"),
        (1_704_167_159, "2024-01-02 03:45 UTC"),
        (10**11 - 1, "5138-11-16 09:46 UTC"),
    ],
)
def test_a_moment_is_shown_to_the_minute(stamp: int, shown: str) -> None:
    assert moment(stamp) == shown


def test_stamps_are_whole_seconds_from_1971_to_5138() -> None:
    assert moment(EARLIEST_STAMP) == "1971-01-01 00:00 UTC"
    good = [EARLIEST_STAMP, 1_704_167_159.0, 1e11 - 1]
    bad = [-1.0, 0.0, 1_704_167.0, EARLIEST_STAMP - 1, 1e9 + 0.5, 1e11, np.nan, np.inf, -np.inf]
    assert not_stamps(np.array([*good, *bad])).tolist() == [False] * 3 + [True] * 9


COUNTER = (
    ", which looks like a counter, or seconds divided once too often: divide milliseconds by "
    "10**3, nanoseconds by 10**9"
)


@pytest.mark.parametrize(
    ("stamp", "said"),
    [
        (-1.0, "-1"),
        (1e9 + 0.5, "1000000000.5"),
        (0.0, f"0{COUNTER}"),
        (1_704_167.1, f"1704167.1{COUNTER}"),
        (1e11, "100000000000, which looks like milliseconds: divide by 10**3"),
        (1e14, "100000000000000, which looks like microseconds: divide by 10**6"),
        (1e17, "1e+17, which looks like nanoseconds: divide by 10**9"),
        (1e20, "1e+20"),
        (np.nan, "nan"),
    ],
)
def test_what_is_no_stamp_is_said_with_the_unit_that_it_looks_like(stamp: float, said: str) -> None:
    expected = (
        "expected datetime in whole epoch seconds (UTC) from 31536000 (1971) and below "
        f"100000000000; found {said}"
    )
    assert bad_stamp(stamp) == expected
    number, comma, unit = said.partition(",")
    assert bad_stamp(stamp, " in row 7") == expected.replace(
        said, f"{number} in row 7{comma}{unit}"
    )


@pytest.mark.parametrize("zoned", [True, False])
def test_dates_become_seconds_by_the_line_that_is_told(zoned: bool) -> None:
    pandas = pytest.importorskip("pandas")
    text = "2024-01-02 09:15:00" + "+05:30" * zoned
    frame = pandas.DataFrame({"datetime": [text]})
    line, _, said = dates_to_seconds(zoned).partition(", with ")
    assert said == ("" if zoned else "the zone of the market's clock")
    exec(line, {"pandas": pandas, "frame": frame})  # noqa: S102, what it tells
    assert frame["datetime"].tolist() == [1_704_167_100]
