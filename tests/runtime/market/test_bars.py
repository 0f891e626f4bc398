import re
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import random_bars

from hrm_runtime import BadBars, Bar, Bars, read_csv
from hrm_runtime.market.bars import Cleaning
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.series import read_bars, read_series, series_file, series_files, series_name

COLUMNS: dict[str, list[float]] = {
    "datetime": [300, 600, 900],
    "open": [10.0, 11.0, 12.0],
    "high": [11.5, 12.5, 13.5],
    "low": [9.5, 10.5, 11.5],
    "close": [11.0, 12.0, 13.0],
    "volume": [0.0, 7.0, 9.0],
}
NAMES = tuple(COLUMNS)


def bars(**changes: Any) -> Bars:
    return Bars(**{**COLUMNS, **changes})


def with_value(name: str, value: float) -> Bars:
    """Three bars of which the second holds `value` in column `name`."""
    return bars(**{name: [COLUMNS[name][0], value, COLUMNS[name][2]]})


def picked(order: list[int], **changes: list[float]) -> Bars:
    """Rows of `COLUMNS` in `order`, with some columns given outright."""
    return Bars(**{**{n: [c[i] for i in order] for n, c in COLUMNS.items()}, **changes})


def content(series: Bars) -> dict[str, list[float]]:
    return {name: getattr(series, name).tolist() for name in NAMES}


def assert_equal(found: Bars, expected: Bars) -> None:
    assert (found.volume is None) == (expected.volume is None)
    for name in NAMES if expected.volume is not None else NAMES[:-1]:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), strict=True)


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


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_two_different_bars_with_one_stamp_are_refused(name: str) -> None:
    order = [0, 1, 1, 2]
    column = [COLUMNS[name][i] for i in order]
    column[2] += 0.25
    with pytest.raises(BadBars, match=rf"one bar per stamp; at 600 two differ.*{name}'"):
        picked(order, **{name: column})


def test_a_conflict_is_found_between_a_pair_of_equals() -> None:
    with pytest.raises(BadBars, match=r"at 600 two differ: .*'open': 11\.0.* and .*'open': 11\.5"):
        picked([0, 1, 1, 1, 2], open=[10.0, 11.0, 11.5, 11.0, 12.0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -11.0, 1e-13, 1e13])
@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
def test_a_price_out_of_range_is_refused_with_its_stamp(name: str, value: float) -> None:
    with pytest.raises(BadBars, match=r"finite prices between 1e-12 and 1e\+12; found .* at 600"):
        with_value(name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("high", 11.9), ("low", 11.1), ("open", 13.0), ("close", 10.0)]
)
def test_a_bar_that_does_not_enclose_its_body_is_refused(name: str, value: float) -> None:
    with pytest.raises(BadBars, match=r"low <= open, close <= high; found .*at 600"):
        with_value(name, value)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_an_impossible_volume_is_refused(value: float) -> None:
    with pytest.raises(BadBars, match=r"volume >= 0; found 11, 12\.5, 10\.5, 12, .* at 600"):
        with_value("volume", value)


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        (600.5, r"600\.5"),
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

ONE = Bar(600, 11.0, 12.5, 10.5, 12.0, 7.0)


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
    assert Bar(600, 11.0, 12.5, 10.5, 12.0) == ONE._replace(volume=None)


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
    assert picked([2, 0, 1]).newest() == Bar(900, 12.0, 13.5, 11.5, 13.0, 9.0)
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
        (ONE._replace(close=np.nan), "expected finite prices .* at 600"),
        (ONE._replace(high=11.5), "expected low <= open, close <= high; found .* at 600"),
        (ONE._replace(volume=-1.0), "expected volume >= 0; found .* at 600"),
        (ONE._replace(datetime=600_000_000_000), "expected datetime in whole epoch seconds"),
        (ONE._replace(open="11.0"), "expected numbers in column open: found <U4"),
        (COLUMNS, "expected column datetime to have one axis, found 2"),
    ],
    ids=[
        *("none", "tuple", "number", "bars", "empty", "missing", "nan", "impossible", "volume"),
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


# CSV


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("volume", [True, False], ids=["volume", "no volume"])
def test_what_write_csv_wrote_reads_back_bit_equal(tmp_path: Path, volume: bool) -> None:
    rng = np.random.default_rng(3)
    clean = random_bars(50, seed=3)
    close = clean.close * (1 + 1e-9 * rng.standard_normal(50))  # no short decimals
    written = Bars(
        clean.datetime,
        clean.open,
        np.maximum(clean.high, close),
        np.minimum(clean.low, close),
        close,
        rng.random(50) if volume else None,
    )
    write_csv(written, tmp_path / "bars.csv")
    assert_equal(read_csv(tmp_path / "bars.csv"), written)


def test_a_feed_s_file_is_read_by_column_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "feed.csv",
        "\ufeff,datetime, close ,high,low,open,symbol,volume\r\n"
        "1,600,12,12.5,10.5,11,Nifty 50,7\r\n"
        "0,300,11,11.5,9.5,10,Nifty 50,0\r\n"
        "\r\n"
        "2,900,13,13.5,11.5,12,Nifty 50,9\r\n"
        "2,900,13,13.5,11.5,12,Nifty 50,9\r\n",
    )
    read = read_csv(path)
    assert content(read) == COLUMNS
    assert read.cleaning == Cleaning(duplicates=1, disordered=1)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = write(tmp_path / "excel.csv", "\ufeffdatetime,open,high,low,close\n300,1,3,0.5,2\n")
    assert_equal(read_csv(path), Bars([300], [1.0], [3.0], [0.5], [2.0]))


def test_a_header_alone_is_no_bars(tmp_path: Path) -> None:
    assert len(read_csv(write(tmp_path / "header.csv", ",".join(NAMES) + "\n"))) == 0


HEADER = "datetime,open,high,low,close\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header such as datetime,open,.* found an empty file or first line"),
        ("\n300,1,1,1,1\n", "found an empty file or first line"),
        ("datetime,open,high,low\n1,1,1,1\n", "missing close; found datetime, open, high, low"),
        (
            HEADER + "300,1,1,1,1\n600,1,1,1,one\n",
            "line 3, column close: expected a number, found 'one'",
        ),
        (
            HEADER + "300,1,1,1,\n",
            "line 2, column close: expected a number, found an empty cell; fill it or drop the",
        ),
        (HEADER + "300,1,1\n", "line 2: expected 5 cells as in the header, found 3"),
        (HEADER + "\n300,1,1,nan,1\n", "line 3, column low: expected a finite .* found nan; fill"),
        (HEADER + "300,1,1,1,-inf\n", "line 2, column close: expected a finite .* found -inf"),
        (
            HEADER + '300,1,"1,5",1,1\n',
            "line 2, column high: expected a number with a decimal point, found '1,5'",
        ),
        (
            HEADER + "300,1,1,5,1,1\n",
            "line 2: expected 5 cells as in the header, found 6; write .* with a decimal point",
        ),
        (
            HEADER.replace(",", ";") + "300;1;1;1;1\n",
            (
                r"line 1: expected columns separated by commas, found ';'; .*read_csv\(FILE, "
                r"sep=';'\)\.to_csv\(FILE, index=False\), and decimal=','"
            ),
        ),
        (HEADER.replace(",", "\t"), r"separated by commas, found '\\t'; .*sep='\\t'"),
        (
            "300,1,1,1,1\n",
            (
                "line 1: expected a header, found the numbers of a bar; write datetime,"
                "open,high,low,close, or"
            ),
        ),
        ("2024-01-02,1,1,1,1\n", "line 1: expected a header, found the numbers of a bar"),
        ("date,open,high,low,close\n", "missing datetime; found date, .*close; rename them"),
        (
            HEADER + "1704167100000,1,1,1,1\n",
            (
                r"line 2, column datetime: expected datetime in whole epoch seconds \(UTC\) below "
                r"100000000000; found 1704167100000, which looks like milliseconds: "
                r"divide by 10\*\*3"
            ),
        ),
        (HEADER + "1704167100000000,1,1,1,1\n", r"microseconds: divide by 10\*\*6"),
        (HEADER + "1704167100000000000,1,1,1,1\n", r"nanoseconds: divide by 10\*\*9"),
        (HEADER + "1e30,1,1,1,1\n", r"column datetime: .*; found 1e\+30$"),
        (HEADER + "300.5,1,1,1,1\n", r"column datetime: .*; found 300\.5$"),
        (HEADER + "noon,1,1,1,1\n", r"expected epoch seconds \(UTC\), found 'noon'; mend it or"),
        (HEADER + "300,1,1,1,1\n300,2,2,2,2\n", "at 300 two differ"),
        (HEADER + "300," + "1" * 200_000 + ",1,1,1\n", "readable CSV file: field larger than"),
    ],
    ids=[
        "empty",
        "empty first line",
        "column",
        "text",
        "blank",
        "short",
        "nan",
        "inf",
        "decimal comma",
        "decimal comma in two cells",
        "semicolons",
        "tabs",
        "no header",
        "no header but dates",
        "another name",
        "milliseconds",
        "microseconds",
        "nanoseconds",
        "no unit",
        "fraction",
        "word",
        "conflict",
        "field",
    ],
)
def test_a_file_that_is_not_bars_is_named_with_the_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(BadBars, match=rf"feed\.csv: .*{message}"):
        read_csv(write(tmp_path / "feed.csv", text))


@pytest.mark.parametrize(
    "content",
    [HEADER.encode() + b"300,1,1,1,1\xe9\n", bytes(range(256))],
    ids=["latin-1", "binary"],
)
def test_a_file_that_is_not_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "feed.csv"
    path.write_bytes(content)
    with pytest.raises(BadBars, match=r"feed\.csv: expected a readable CSV file: .*codec"):
        read_csv(path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-02 09:15:00+05:30", 1704167100),
        ("2024-01-02T03:45:00Z", 1704167100),
        ("2024-01-02 09:15:00", 1704167100),
        ("2024-01-02", 1704133800),
    ],
)
def test_a_date_is_refused_with_the_line_that_converts_it(
    text: str, seconds: int, tmp_path: Path
) -> None:
    with pytest.raises(BadBars) as refused:
        read_csv(write(tmp_path / "feed.csv", f"{HEADER}{text},1,1,1,1\n"))
    said, _, line = str(refused.value).partition("; convert it with pandas: ")
    assert said == (
        f"{tmp_path / 'feed.csv'}: line 2, column datetime: expected epoch seconds (UTC), "
        f"found {text!r}"
    )
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(tmp_path / "feed.csv")
    zone = ", with the zone of the market's clock"
    assert line.endswith(zone) == ("tz_localize" in line)
    exec(line.removesuffix(zone), {"pandas": pandas, "frame": frame})  # noqa: S102, what it tells
    assert Bars.of(frame).datetime.tolist() == [seconds]


def test_a_column_of_dates_is_refused_with_what_converts_it() -> None:
    message = (
        r"column datetime: found datetime64\[ns\]; convert dates with pandas: frame\['datetime'\]"
    )
    with pytest.raises(BadBars, match=message):
        bars(datetime=np.array(["2024-01-02"] * 3, dtype="datetime64[ns]"))


def test_a_path_where_nothing_is_is_not_taken_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file/Nifty_5.csv"):
        with pytest.raises(BadBars, match=rf"{name}: expected a bars file or .* nothing there"):
            read_series(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match=r"gone\.csv: expected a readable CSV file: .*No such file"):
        read_csv(tmp_path / "gone.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match="expected a readable CSV file"):
        read_csv(tmp_path)


@pytest.mark.parametrize("read", [read_csv, read_bars])
@pytest.mark.parametrize("name", ["bars.parquet", "BARS.PARQUET"])
def test_parquet_is_refused_with_what_reads_it_and_the_line_that_installs_it(
    tmp_path: Path, name: str, read: Callable[[Path], Bars]
) -> None:
    message = (
        f"{name}: expected CSV; Parquet is read by hrm_train.data.parquet, which needs polars: "
        "pip install '.[train]', or convert the file"
    )
    with pytest.raises(BadBars, match=f"{re.escape(message)}$"):
        read(tmp_path / name)


# series


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("Nifty_5.csv", ("Nifty", "5")),
        ("data/Bank_Nifty_15.csv", ("Bank_Nifty", "15")),
        (Path("M&M_D.csv"), ("M&M", "D")),
        ("EUR%2FUSD_60.csv", ("EUR/USD", "60")),
        ("eur%2fusd_60.parquet", ("eur/usd", "60")),
        ("A%5FB_H%5F1.csv", ("A_B", "H_1")),  # the last underscore is looked for before
        ("N%C3%A4hr_5.csv", ("N\u00e4hr", "5")),
        ("100%25_5.csv", ("100%", "5")),
        ("%2525_5.csv", ("%25", "5")),  # once
        ("100%_5.csv", ("100%", "5")),  # no escapes, so that they stay as they are
        ("%zz%2_5.csv", ("%zz%2", "5")),
        ("%FF_5.csv", ("%FF", "5")),
        ("a+b_5.csv", ("a+b", "5")),
    ],
)
def test_a_series_is_named_by_its_file(path: str | Path, name: tuple[str, str]) -> None:
    assert series_name(path) == name


@pytest.mark.parametrize("path", ["Nifty.csv", "_5.csv", "Nifty_.csv"])
def test_a_file_name_without_both_parts_is_refused(path: str) -> None:
    message = (
        f"{path}: expected a file named SYMBOL_TIMEFRAME.csv, for example Nifty_5.csv; rename it, "
        "or give both --instrument and --timeframe to predict, trace or backtest"
    )
    with pytest.raises(BadBars, match=f"^{re.escape(message)}$"):
        series_name(path)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("EUR%0AUSD_5.csv", r"instrument: .* found 'EUR\\nUSD'$"),
        ("Nifty_%00.csv", r"timeframe: .* found '\\x00'$"),
        ("Nif\tty_5.csv", r"instrument: .* found 'Nif\\tty'$"),
        ("Nif\udcffty_5.csv", r"instrument: .* found 'Nif\\udcffty'$"),  # not text on the disk
        ("%20_5.csv", "instrument: .* found ' '$"),
    ],
)
def test_a_name_that_cannot_be_read_or_typed_is_refused(path: str, what: str) -> None:
    with pytest.raises(BadBars, match=rf"_.*\.csv: {what}") as refused:
        series_name(path)
    assert "expected a name of printable characters" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (("Nifty", "5"), "Nifty_5.csv"),
        (("Bank_Nifty", "15"), "Bank_Nifty_15.csv"),
        (("M&M N\u00e4hr 1.5", "D"), "M&M N\u00e4hr 1.5_D.csv"),
        (("EUR/USD", "60"), "EUR%2FUSD_60.csv"),
        (("100%", "H_1"), "100%25_H%5F1.csv"),
        (('a\\b:c*d?e"f<g>h|i', "5"), "a%5Cb%3Ac%2Ad%3Fe%22f%3Cg%3Eh%7Ci_5.csv"),
    ],
)
def test_a_file_is_named_after_its_series(name: tuple[str, str], file: str) -> None:
    assert series_file(*name) == file
    assert series_name(file) == name


NAME = st.text(min_size=1).filter(lambda name: name.isprintable() and bool(name.strip()))


@given(NAME, NAME)
def test_every_name_comes_back_from_its_file(instrument: str, timeframe: str) -> None:
    file = series_file(instrument, timeframe)
    assert Path(file).name == file
    assert series_name(Path("folder") / file) == (instrument, timeframe)


@pytest.mark.parametrize("name", [("", "5"), ("Nifty", ""), ("Nif\nty", "5"), ("Nifty", " ")])
def test_no_file_is_named_after_what_cannot_be_read(name: tuple[str, str]) -> None:
    with pytest.raises(BadBars, match=r"^(instrument|timeframe): expected a name of printable"):
        series_file(*name)


def test_files_and_folders_become_series_sorted_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    expected = {("Alpha", "5"): 1, ("Beta", "15"): 2, ("Beta", "5"): 3}
    places = (folder / "Alpha_5.csv", tmp_path / "Beta_15.csv", folder / "Beta_5.csv")
    for seed, path in zip(expected.values(), places, strict=True):
        write_csv(random_bars(5, seed=seed), path)
    (folder / "notes.txt").write_text("not bars")

    series = read_series([tmp_path / "Beta_15.csv", str(folder)])

    assert list(series) == list(expected)
    for name, seed in expected.items():
        assert_equal(series[name], random_bars(5, seed=seed))


def test_one_series_in_two_files_is_refused(tmp_path: Path) -> None:
    write_csv(bars(), tmp_path / "Nifty_5.csv")
    with pytest.raises(BadBars, match=r"one file per series, .*Nifty_5\.csv holds it too"):
        read_series([tmp_path, tmp_path / "Nifty_5.csv"])


def test_one_series_under_two_spellings_is_refused(tmp_path: Path) -> None:
    for name in ("EUR%2FUSD_60.csv", "EUR%2fUSD_60.csv"):
        write_csv(bars(), tmp_path / name)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("a file system to which these are one file")
    message = r"EUR%2fUSD_60\.csv: expected one file per series, .*EUR%2FUSD_60\.csv holds it too"
    with pytest.raises(BadBars, match=message):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "none"),
        (["notes.txt"], "notes.txt"),
        (["a.xls", "b.csv.gz", "c.json"], "a.xls, b.csv.gz, c.json"),
        (["a.xls", "b.xls", "c.xls", "d.xls", "e.xls"], "a.xls, b.xls, c.xls, 2 more"),
    ],
)
def test_a_folder_without_bars_is_refused_and_says_what_is_there(
    files: list[str], found: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).write_text("not bars")
    message = f"{tmp_path}: expected CSV or Parquet files in this folder, found {found}"
    with pytest.raises(BadBars, match=f"^{re.escape(message)}$"):
        read_series([tmp_path])


def test_a_folder_s_files_are_found_in_upper_and_lower_case_and_once(tmp_path: Path) -> None:
    for seed, file in enumerate(("Alpha_5.CSV", "Beta_5.Csv", "Gamma_5.csv", "notes.CSV.txt")):
        write_csv(random_bars(5, seed=seed), tmp_path / file)
    found = series_files(tmp_path)
    assert {name: file.name for name, file in found.items()} == {
        ("Alpha", "5"): "Alpha_5.CSV",
        ("Beta", "5"): "Beta_5.Csv",
        ("Gamma", "5"): "Gamma_5.csv",
    }
    for seed, read in enumerate(read_series(tmp_path).values()):
        assert_equal(read, random_bars(5, seed=seed))


def test_a_folder_that_may_not_be_looked_into_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "iterdir", _denied)
    message = rf"^{tmp_path}: expected a readable file or folder of bars: .*denied"
    with pytest.raises(BadBars, match=message):
        read_series(tmp_path)


# names given


@pytest.mark.parametrize(
    ("file", "names", "expected"),
    [
        ("Alpha_5.csv", {"instrument": "EUR/USD"}, ("EUR/USD", "5")),
        ("Alpha_5.csv", {"timeframe": "D"}, ("Alpha", "D")),
        ("feed.csv", {"instrument": "A%2FB", "timeframe": "D_1"}, ("A%2FB", "D_1")),
    ],
)
def test_a_name_that_is_given_is_not_read_from_the_file_s(
    file: str, names: dict[str, str], expected: tuple[str, str], tmp_path: Path
) -> None:
    write_csv(bars(), tmp_path / file)
    for path in (tmp_path, tmp_path / file):
        assert series_files(path, **names) == {expected: tmp_path / file}
        ((name, read),) = read_series(path, **names).items()
        assert name == expected
        assert_equal(read, bars())


def test_one_name_that_is_given_leaves_the_other_to_the_file(tmp_path: Path) -> None:
    write_csv(bars(), tmp_path / "feed.csv")
    with pytest.raises(BadBars, match=r"feed\.csv: expected a file named SYMBOL_TIMEFRAME\.csv"):
        series_files(tmp_path / "feed.csv", instrument="Alpha")


def test_a_name_that_is_given_is_of_one_file(tmp_path: Path) -> None:
    for file in ("Alpha_5.csv", "Beta_5.csv"):
        write_csv(bars(), tmp_path / file)
    message = (
        "expected to name one bars file, found Alpha_5.csv, Beta_5.csv; give one file, or none of "
        "these names and files that are called SYMBOL_TIMEFRAME.csv"
    )
    with pytest.raises(BadBars, match=f"^instrument: {re.escape(message)}$"):
        read_series(tmp_path, instrument="Alpha")
    files = [tmp_path / "Alpha_5.csv", tmp_path / "Beta_5.csv"]
    with pytest.raises(BadBars, match=f"^instrument and timeframe: {re.escape(message)}$"):
        read_series(files, instrument="Alpha", timeframe="5")


@pytest.mark.parametrize("what", ["instrument", "timeframe"])
@pytest.mark.parametrize("name", ["", "  ", "a\x1bb"])
def test_a_name_that_is_given_is_one_that_can_be_read(what: str, name: str, tmp_path: Path) -> None:
    write_csv(bars(), tmp_path / "Alpha_5.csv")
    message = f"{what}: expected a name of printable characters, found {name!r}"
    with pytest.raises(BadBars, match=f"^{re.escape(message)}$"):
        series_files(tmp_path, **{what: name})


def test_a_folder_that_holds_parquet_too_is_refused_rather_than_read_in_part(
    tmp_path: Path,
) -> None:
    write_csv(bars(), tmp_path / "Alpha_5.csv")
    (tmp_path / "Beta_5.parquet").touch()
    with pytest.raises(BadBars, match=r"Beta_5\.parquet: expected CSV; Parquet is read by"):
        read_series(tmp_path)


def test_a_reader_that_is_passed_in_reads_the_files_of_its_suffix(tmp_path: Path) -> None:
    write_csv(bars(), tmp_path / "Alpha_5.csv")
    for name in ("Beta_5.parquet", "Gamma_5.PARQUET"):
        (tmp_path / name).touch()
    read: list[Path] = []

    def reader(path: Path) -> Bars:
        read.append(path)
        return bars(volume=None)

    readers = {".parquet": reader}
    series = read_series(tmp_path, readers)
    assert list(series) == [("Alpha", "5"), ("Beta", "5"), ("Gamma", "5")]
    assert_equal(series["Alpha", "5"], bars())
    assert_equal(series["Beta", "5"], bars(volume=None))
    assert_equal(read_bars(str(tmp_path / "Beta_5.parquet"), readers), bars(volume=None))
    assert [path.name for path in read] == ["Beta_5.parquet", "Gamma_5.PARQUET", "Beta_5.parquet"]


def test_a_file_of_another_suffix_is_read_as_csv(tmp_path: Path) -> None:
    write_csv(bars(), tmp_path / "Alpha_5.txt")
    assert_equal(read_bars(tmp_path / "Alpha_5.txt"), bars())
    assert_equal(read_series(tmp_path / "Alpha_5.txt")["Alpha", "5"], bars())


def test_a_missing_series_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match=r"Nifty_5\.csv: expected a bars file .* nothing there"):
        read_series([tmp_path / "Nifty_5.csv"])


def test_a_path_that_may_not_be_looked_at_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "stat", _denied)  # what it does where a parent is not searchable
    message = r"Nifty_5\.csv: expected a readable file or folder of bars: .*denied"
    with pytest.raises(BadBars, match=message):
        read_series([tmp_path / "Nifty_5.csv"])


def _denied(*arguments: Any, **options: Any) -> None:
    raise PermissionError(13, "Permission denied")


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
        "datetime": [60],
        "x": [9],
    }
    bars = Bars.of(Frame({**columns, "x": [9]}))  # type: ignore[arg-type]
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0]) == (1.5, 3.0, 1.0, 2.0)
    assert bars.volume is None


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


def test_one_path_is_as_good_as_a_list_of_one(tmp_path: Path) -> None:
    write_csv(random_bars(3), tmp_path / "Alpha_5.csv")
    (name,) = read_series(tmp_path)
    assert name == ("Alpha", "5")
    assert read_series(str(tmp_path / "Alpha_5.csv")).keys() == {name}
