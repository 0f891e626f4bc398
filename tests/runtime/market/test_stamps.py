import numpy as np
import pytest

from hrm_runtime.market.stamps import bad_stamp, dates_to_seconds, moment, not_stamps


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


def test_stamps_are_whole_seconds_from_1970_to_5138() -> None:
    good = [0.0, 1.0, 1e11 - 1]
    bad = [-1.0, 0.5, 1e11, np.nan, np.inf, -np.inf]
    assert not_stamps(np.array([*good, *bad])).tolist() == [False] * 3 + [True] * 6


@pytest.mark.parametrize(
    ("stamp", "said"),
    [
        (-1.0, "-1"),
        (300.5, "300.5"),
        (1e11, "100000000000, which looks like milliseconds: divide by 10**3"),
        (1e14, "100000000000000, which looks like microseconds: divide by 10**6"),
        (1e17, "1e+17, which looks like nanoseconds: divide by 10**9"),
        (1e20, "1e+20"),
        (np.nan, "nan"),
    ],
)
def test_what_is_no_stamp_is_said_with_the_unit_that_it_looks_like(stamp: float, said: str) -> None:
    expected = f"expected datetime in whole epoch seconds (UTC) below 100000000000; found {said}"
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
