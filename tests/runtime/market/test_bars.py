from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from three_bars import COLUMNS, NAMES, assert_equal, bars, content

from hrm_runtime import BadBars, Bar, Bars
from hrm_runtime.market.bars import Cleaning


def with_value(name: str, value: float) -> Bars:
    """Three bars of which the second holds `value` in column `name`."""
    return bars(**{name: [COLUMNS[name][0], value, COLUMNS[name][2]]})


def picked(order: list[int], **changes: list[float]) -> Bars:
    """Rows of `COLUMNS` in `order`, with some columns given outright."""
    return Bars(**{**{n: [c[i] for i in order] for n, c in COLUMNS.items()}, **changes})


# construction


@pytest.mark.parametrize("kind", [list, tuple, np.array], ids=lambda kind: kind.__name__)
def test_sequences_of_any_kind_become_the_same_columns(kind: Callable[..., Any]) -> None:
    made = Bars(**{name: kind(column) for name, column in COLUMNS.items()})
    assert content(made) == COLUMNS
    assert made.datetime.dtype == np.int64
    assert {getattr(made, name).dtype for name in NAMES[1:]} == {np.dtype(np.float64)}


def test_volume_may_be_absent() -> None:
    assert bars(volume=None).volume is None


def test_clean_bars_need_no_cleaning() -> None:
    assert bars().cleaning == Cleaning(duplicates=0, disordered=0)


def test_no_bars_at_all_are_bars() -> None:
    empty = Bars([], [], [], [], [])
    assert (len(empty), empty.cleaning) == (0, Cleaning())


@pytest.mark.parametrize(
    ("order", "cleaning"),
    [
        ([0, 2, 1], Cleaning(disordered=1)),
        ([2, 1, 0], Cleaning(disordered=2)),
        ([0, 1, 1, 2], Cleaning(duplicates=1)),
        ([1, 1, 1, 0, 2], Cleaning(duplicates=2, disordered=1)),
        ([1, 2, 0, 1, 2], Cleaning(duplicates=2, disordered=1)),
    ],
)
def test_disorder_and_exact_duplicates_are_mended_and_counted(
    order: list[int], cleaning: Cleaning
) -> None:
    made = picked(order)
    assert content(made) == COLUMNS
    assert made.cleaning == cleaning


def test_duplicates_without_volume_are_mended_too() -> None:
    made = Bars(**{name: [*COLUMNS[name], COLUMNS[name][1]] for name in NAMES[:-1]})
    assert made.datetime.tolist() == COLUMNS["datetime"]
    assert made.cleaning == Cleaning(duplicates=1, disordered=1)


@pytest.mark.parametrize("name", NAMES)
def test_columns_cannot_be_written_to(name: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(bars(), name)[0] = 1


@pytest.mark.parametrize("name", NAMES)
def test_what_the_caller_does_to_its_arrays_later_changes_nothing(name: str) -> None:
    given = {key: np.array(column) for key, column in COLUMNS.items()}
    made = Bars(**given)
    given[name][:] = -1
    assert content(made) == COLUMNS


def test_attributes_cannot_be_set() -> None:
    with pytest.raises(FrozenInstanceError, match="close"):
        bars().close = np.zeros(3)  # type: ignore[misc]


# refusal


@pytest.mark.parametrize("volume", [7.0, -1.0, np.nan, None])
def test_of_bars_that_differ_in_volume_alone_the_last_stays(volume: float | None) -> None:
    given = [COLUMNS["volume"][i] for i in (0, 1, 2)]
    made = picked([0, 1, 1, 2], volume=[given[0], given[1], volume, given[2]])
    expected = volume if volume == 7.0 else np.nan
    np.testing.assert_array_equal(made.volume, [given[0], expected, given[2]])
    assert made.cleaning == Cleaning(duplicates=1)


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_bars_that_rounding_parts_are_one(name: str) -> None:
    column = [COLUMNS[name][i] for i in (0, 1, 1, 2)]
    column[2] = np.nextafter(column[2], np.inf if name == "high" else 11.5)
    assert picked([0, 1, 1, 2], **{name: column}).cleaning == Cleaning(duplicates=1)
    column[2] = column[1] + 1e-6
    with pytest.raises(BadBars, match=rf"two differ: .*'{name}': {column[1]}, .*{column[2]}"):
        picked([0, 1, 1, 2], **{name: column})


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_two_different_bars_with_one_stamp_are_refused(name: str) -> None:
    order = [0, 1, 1, 2]
    column = [COLUMNS[name][i] for i in order]
    column[2] += 0.25
    with pytest.raises(BadBars, match=rf"one bar per stamp; at 31536600 two differ.*{name}'"):
        picked(order, **{name: column})


def test_a_conflict_is_found_between_a_pair_of_equals() -> None:
    with pytest.raises(
        BadBars, match=r"at 31536600 two differ: .*'open': 11\.0.* and .*'open': 11\.5"
    ):
        picked([0, 1, 1, 1, 2], open=[10.0, 11.0, 11.5, 11.0, 12.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -11.0, 1e-13, 1e13])
@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_out_of_range_is_refused_with_its_stamp(name: str, value: float) -> None:
    with pytest.raises(
        BadBars, match=r"finite prices between 1e-12 and 1e\+12; found .* at 31536600"
    ):
        with_value(name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("high", 11.9), ("low", 11.1), ("open", 13.0), ("close", 10.0)]
)
def test_a_bar_that_does_not_enclose_its_body_is_refused(name: str, value: float) -> None:
    with pytest.raises(BadBars, match=r"low <= open, close <= high; found .*at 31536600"):
        with_value(name, value)


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e9])
def test_a_high_or_low_that_rounding_parts_from_the_body_is_put_onto_it(factor: float) -> None:
    prices = {"open": [1.1], "high": [np.nextafter(1.3, 0)], "low": [np.nextafter(1.1, 2)],
              "close": [1.3]}  # fmt: skip
    made = Bars(
        [31_536_000], **{name: factor * np.array(column) for name, column in prices.items()}
    )
    assert (made.high[0], made.low[0]) == (made.close[0], made.open[0])
    prices["high"] = [1.3 - 1e-8]
    with pytest.raises(BadBars, match=r"high 1\.29999999, low 1\.1, close 1\.3 at 31536000"):
        Bars([31_536_000], **{**prices, "low": [1.1]})


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, None])
def test_a_volume_that_is_none_is_not_known(value: float | None) -> None:
    made = bars(volume=[1.0, value, 2.0])
    np.testing.assert_array_equal(made.volume, [1.0, np.nan, 2.0])
    assert made[:2].newest().volume is None


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        (31_536_600.5, r"31536600\.5"),
        (1_700_000_000_000, "1700000000000"),
        (-300, "-300"),
        (np.nan, "nan"),
        (np.inf, "inf"),
    ],
    ids=["fraction", "milliseconds", "negative", "nan", "inf"],
)
def test_a_stamp_that_is_not_whole_epoch_seconds_is_refused(stamp: float, shown: str) -> None:
    with pytest.raises(BadBars, match=rf"whole epoch seconds .*found .*{shown}.* in row 1"):
        with_value("datetime", stamp)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(BadBars, match=r"one length, found .*'high': 3, 'low': 2"):
        bars(low=[9.5, 10.5])


@pytest.mark.parametrize(
    ("column", "axes"), [([[9.5, 10.5, 11.5]], 2), (9.5, 0)], ids=["2-D", "a single number"]
)
def test_a_column_has_one_axis(column: Any, axes: int) -> None:
    with pytest.raises(BadBars, match=f"column low to have one axis, found {axes}"):
        bars(low=column)


@pytest.mark.parametrize(
    "column",
    [["a", "b", "c"], [1.0, [2.0], 3.0], [10**400, 1, 1], object()],
    ids=["text", "ragged", "beyond floats", "object"],
)
def test_a_column_that_holds_no_numbers_is_refused(column: Any) -> None:
    with pytest.raises(BadBars, match="expected numbers in column high"):
        bars(high=column)


# mappings


def test_a_mapping_is_read_by_name_and_others_are_ignored() -> None:
    made = Bars.of({"": [0, 1, 2], "symbol": ["x"] * 3, **COLUMNS})
    assert content(made) == COLUMNS


def test_a_mapping_without_volume_makes_bars_without() -> None:
    assert Bars.of({name: COLUMNS[name] for name in NAMES[:-1]}).volume is None


@pytest.mark.parametrize(
    ("left_out", "shown"), [({"close"}, "close"), ({"high", "datetime"}, "datetime, high")]
)
def test_missing_columns_are_named(left_out: set[str], shown: str) -> None:
    with pytest.raises(BadBars, match=rf"datetime, open, high, low, close; missing {shown}; found"):
        Bars.of({name: column for name, column in COLUMNS.items() if name not in left_out})


def test_an_empty_mapping_has_no_columns() -> None:
    with pytest.raises(BadBars, match="found none"):
        Bars.of({})


# one bar

ONE = Bar(31_536_600, 11.0, 12.5, 10.5, 12.0, 7.0)


@pytest.mark.parametrize("volume", [7.0, 0.0, None])
@pytest.mark.parametrize(
    "kind", [lambda bar: bar, lambda bar: bar._asdict()], ids=["bar", "mapping"]
)
def test_one_bar_becomes_bars_and_is_the_newest_of_them(
    kind: Callable[[Bar], Any], volume: float | None
) -> None:
    bar = ONE._replace(volume=volume)
    made = Bars.of_one(kind(bar))
    prices = {name: [COLUMNS[name][1]] for name in NAMES[:-1]}
    assert_equal(made, Bars(**prices, volume=None if volume is None else [volume]))
    assert made.newest() == bar


def test_a_bar_has_no_volume_unless_it_is_given() -> None:
    assert Bar(31_536_600, 11.0, 12.5, 10.5, 12.0) == ONE._replace(volume=None)


def test_a_mapping_of_one_bar_is_read_by_name_and_others_are_ignored() -> None:
    values = {"symbol": "x", "closed": True, **reversed_values(ONE), "note": None}
    assert_equal(Bars.of_one(values), picked([1]))


def reversed_values(bar: Bar) -> dict[str, Any]:
    return dict(reversed(bar._asdict().items()))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.array], ids=lambda k: k.__name__)
def test_numpy_scalars_are_values_of_a_bar(kind: Callable[[float], Any]) -> None:
    values = {name: kind(value) for name, value in ONE._asdict().items()}
    made = Bars.of_one(values)
    assert_equal(made, picked([1]))
    newest = made.newest()
    assert newest == ONE
    assert {type(value) for value in newest[1:]} == {float}
    assert type(newest.datetime) is int


def test_the_newest_is_the_last_by_stamp() -> None:
    assert picked([2, 0, 1]).newest() == Bar(31_536_900, 12.0, 13.5, 11.5, 13.0, 9.0)
    assert bars(volume=None)[:2].newest() == ONE._replace(volume=None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "^bar: expected a Bar or a mapping, found NoneType$"),
        (tuple(ONE), "^bar: expected a Bar or a mapping, found tuple$"),
        (5, "^bar: expected a Bar or a mapping, found int$"),
        (bars(), "^bar: expected a Bar or a mapping, found Bars$"),
        ({}, "missing datetime, open, high, low, close; found none"),
        (ONE._replace(close=None), "missing close; found datetime, open, high, low, volume"),
        (ONE._replace(close=np.nan), "expected finite prices .* at 31536600"),
        (ONE._replace(high=11.5), "expected low <= open, close <= high; found .* at 31536600"),
        (ONE._replace(datetime=600_000_000_000), "expected datetime in whole epoch seconds"),
        (ONE._replace(open="11.0"), "expected numbers in column open: found <U4"),
        (COLUMNS, "expected column datetime to have one axis, found 2"),
    ],
    ids=[
        *("none", "tuple", "number", "bars", "empty", "missing", "nan", "impossible"),
        *("milliseconds", "text", "columns"),
    ],
)
def test_what_is_not_one_bar_is_refused(given: Any, message: str) -> None:
    with pytest.raises(BadBars, match=message):
        Bars.of_one(given)


# slices


@pytest.mark.parametrize(
    "span", [slice(1, 3), slice(-2, None), slice(None), slice(5, 9), slice(0, 2, 1)], ids=repr
)
@pytest.mark.parametrize("volume", [COLUMNS["volume"], None], ids=["volume", "no volume"])
def test_a_slice_is_the_same_run_of_every_column(span: slice, volume: Any) -> None:
    part = bars(volume=volume)[span]
    assert part.datetime.tolist() == COLUMNS["datetime"][span]
    assert part.close.tolist() == COLUMNS["close"][span]
    assert (part.volume is None) if volume is None else (part.volume.tolist() == volume[span])
    assert part.cleaning == Cleaning()


def test_a_slice_shares_memory_and_stays_read_only() -> None:
    whole = bars()
    part = whole[1:]
    assert np.shares_memory(part.close, whole.close)
    with pytest.raises(ValueError, match="read-only"):
        part.close[0] = 1.0


def test_a_single_bar_is_no_slice() -> None:
    with pytest.raises(TypeError, match="expected a slice, found int"):
        bars()[0]  # type: ignore[index]


def test_a_slice_has_no_step() -> None:
    with pytest.raises(ValueError, match="without a step, found step 2"):
        bars()[::2]


def test_a_column_of_dates_is_refused_with_what_converts_it() -> None:
    message = (
        r"column datetime: found datetime64\[ns\]; convert dates with pandas: frame\['datetime'\]"
    )
    with pytest.raises(BadBars, match=message):
        bars(datetime=np.array(["2024-01-02"] * 3, dtype="datetime64[ns]"))


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (np.array(["1.5"], dtype=object), "text"),
        (["1.5"], "<U3"),
        ([True], "bool"),
        ([1 + 2j], "complex128"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), r"datetime64\[D\]"),
    ],
)
def test_what_only_looks_like_numbers_is_refused(column: Any, found: str) -> None:
    with pytest.raises(BadBars, match=f"numbers in column open: found {found}"):
        Bars([60], column, [3.0], [1.0], [2.0])


class Frame:
    """A data frame that has `columns` and no `keys`, and iterates over its columns."""

    def __init__(self, columns: dict[str, list[float]]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> list[float]:
        return self._columns[name]

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self._columns.values())


def test_a_frame_is_read_by_its_column_names() -> None:
    columns = {
        "close": [2.0],
        "open": [1.5],
        "high": [3.0],
        "low": [1.0],
        "datetime": [31_536_060],
        "x": [9],
    }
    bars = Bars.of(Frame({**columns, "x": [9]}))  # type: ignore[arg-type]
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0]) == (1.5, 3.0, 1.0, 2.0)
    assert bars.volume is None
