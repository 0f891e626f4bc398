import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import random_bars
from three_bars import COLUMNS, NAMES, assert_equal, content

from hrm_runtime import BadBars, Bars, read_csv
from hrm_runtime.market.bars import Cleaning
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.series import read_bars


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
        "1,31536600,12,12.5,10.5,11,Nifty 50,7\r\n"
        "0,31536300,11,11.5,9.5,10,Nifty 50,0\r\n"
        "\r\n"
        "2,31536900,13,13.5,11.5,12,Nifty 50,9\r\n"
        "2,31536900,13,13.5,11.5,12,Nifty 50,9\r\n",
    )
    read = read_csv(path)
    assert content(read) == COLUMNS
    assert read.cleaning == Cleaning(duplicates=1, disordered=1)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = write(tmp_path / "excel.csv", "\ufeffdatetime,open,high,low,close\n31536300,1,3,0.5,2\n")
    assert_equal(read_csv(path), Bars([31_536_300], [1.0], [3.0], [0.5], [2.0]))


INDICATORS = [f"sma_{period}" for period in range(1, 49)]


def features_file(path: Path, bars: Bars, **stamps: list[int]) -> Path:
    """As a host writes one: prices and 48 indicators, rounded, and stamps under another name."""
    names = ["open", "high", "low", "close", *stamps, *INDICATORS, "volume"]
    rows = zip(
        *(getattr(bars, name).tolist() for name in names[:4]),
        *stamps.values(),
        *([0.01 if number % 2 else ""] * len(bars) for number in range(48)),
        [0] * len(bars),
        strict=True,
    )
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    return write(path, "\n".join(lines) + "\n")


def test_a_host_s_file_of_features_is_read_as_the_bars_in_it(tmp_path: Path) -> None:
    raw = random_bars(300, seed=3)
    rounded = {
        name: np.round(getattr(raw, name), 1).tolist() for name in ("open", "high", "low", "close")
    }
    bars = Bars(raw.datetime, **rounded, volume=[0.0] * 300)
    assert not np.array_equal(bars.close, raw.close)
    stamps = raw.datetime.tolist()
    path = features_file(tmp_path / "features_Nifty_5.csv", bars, datetime_epoch=stamps)
    assert_equal(read_csv(path), bars)
    path = features_file(path, bars, datetime_epoch=stamps, datetime=stamps)
    assert_equal(read_csv(path), bars)


def test_two_columns_of_stamps_that_differ_are_refused_with_the_first_line(tmp_path: Path) -> None:
    bars = Bars(**COLUMNS)
    path = features_file(
        tmp_path / "x.csv",
        bars,
        datetime_epoch=[31_536_300, 31_536_601, 31_536_900],
        datetime=[31_536_300, 31_536_600, 31_536_901],
    )
    message = (
        "x.csv: line 3: expected one stamp, found 31536600 in datetime and 31536601 in "
        "datetime_epoch; drop the wrong column"
    )
    with pytest.raises(BadBars, match=f"{re.escape(message)}$"):
        read_csv(path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("2024-01-02 09:15:00", "expected epoch seconds (UTC), found '2024-01-02 09:15:00'; conv"),
        ("1704167100000", "expected datetime in whole epoch seconds (UTC) from 31536000"),
        ("", "expected a number, found an empty cell; fill it"),
        ("nan", "expected a finite number, found nan; fill it"),
    ],
)
@pytest.mark.parametrize("beside", ["", ",datetime"])
def test_a_bad_stamp_is_named_by_the_column_that_it_is_in(
    cell: str, message: str, beside: str, tmp_path: Path
) -> None:
    header = f"datetime_epoch,open,high,low,close{beside}\n"
    path = write(tmp_path / "x.csv", f"{header}{cell},1,1,1,1{',31536300' * bool(beside)}\n")
    expected = f"x.csv: line 2, column datetime_epoch: {message}"
    with pytest.raises(BadBars, match=re.escape(expected)):
        read_csv(path)


def test_a_header_alone_is_no_bars(tmp_path: Path) -> None:
    assert len(read_csv(write(tmp_path / "header.csv", ",".join(NAMES) + "\n"))) == 0


@pytest.mark.parametrize("twice", [["close"], ["datetime"], ["volume"], ["low", "datetime_epoch"]])
def test_a_column_that_is_given_twice_is_refused(twice: list[str], tmp_path: Path) -> None:
    names = ["datetime", "datetime_epoch", "open", "high", "low", "close", "volume"]
    names += ["rsi", *twice, "rsi"]  # what is not read may stand there as it likes
    cells = ["31536300" if name.startswith("datetime") else "1" for name in names]
    path = write(tmp_path / "x.csv", f"{','.join(names)}\n{','.join(cells)}\n")
    named = ", ".join(sorted(twice))
    message = f"x.csv: bars: expected each column once, found {named} more than once; drop or"
    with pytest.raises(BadBars, match=re.escape(message)):
        read_csv(path)


HEADER = "datetime,open,high,low,close\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header such as datetime,open,.* found an empty file or first line"),
        ("\n31536300,1,1,1,1\n", "found an empty file or first line"),
        ("datetime,open,high,low\n1,1,1,1\n", "missing close; found datetime, open, high, low"),
        (
            HEADER + "31536300,1,1,1,1\n31536600,1,1,1,one\n",
            "line 3, column close: expected a number, found 'one'",
        ),
        (
            HEADER + "31536300,1,1,1,\n",
            "line 2, column close: expected a number, found an empty cell; fill it or drop the",
        ),
        (HEADER + "31536300,1,1\n", "line 2: expected 5 cells as in the header, found 3"),
        (
            HEADER + "\n31536300,1,1,nan,1\n",
            "line 3, column low: expected a finite .* found nan; fill",
        ),
        (HEADER + "31536300,1,1,1,-inf\n", "line 2, column close: expected a finite .* found -inf"),
        (
            HEADER + '31536300,1,"1,5",1,1\n',
            "line 2, column high: expected a number with a decimal point, found '1,5'",
        ),
        (
            HEADER + "31536300,1,1,5,1,1\n",
            "line 2: expected 5 cells as in the header, found 6; write .* with a decimal point",
        ),
        (
            HEADER.replace(",", ";") + "31536300;1;1;1;1\n",
            (
                r"line 1: expected columns separated by commas, found ';'; .*read_csv\(FILE, "
                r"sep=';'\)\.to_csv\(FILE, index=False\), and decimal=','"
            ),
        ),
        (HEADER.replace(",", "\t"), r"separated by commas, found '\\t'; .*sep='\\t'"),
        (
            "31536300,1,1,1,1\n",
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
                r"line 2, column datetime: expected datetime in whole epoch seconds \(UTC\) from "
                r"31536000 \(1971\) and below 100000000000; found 1704167100000, which "
                r"looks like milliseconds: divide by 10\*\*3"
            ),
        ),
        (HEADER + "1704167100000000,1,1,1,1\n", r"microseconds: divide by 10\*\*6"),
        (HEADER + "1704167100000000000,1,1,1,1\n", r"nanoseconds: divide by 10\*\*9"),
        (HEADER + "1e30,1,1,1,1\n", r"column datetime: .*; found 1e\+30$"),
        (HEADER + "31536300.5,1,1,1,1\n", r"column datetime: .*; found 31536300\.5$"),
        (HEADER + "noon,1,1,1,1\n", r"expected epoch seconds \(UTC\), found 'noon'; mend it or"),
        (HEADER + "31536300,1,1,1,1\n31536300,2,2,2,2\n", "at 31536300 two differ"),
        (HEADER + "31536300," + "1" * 200_000 + ",1,1,1\n", "readable CSV file: field larger than"),
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
    [HEADER.encode() + b"31536300,1,1,1,1\xe9\n", bytes(range(256))],
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
        f"{name}: expected CSV; Parquet is read by hrm_train.parquet, which needs polars: "
        "pip install '.[train]', or convert the file"
    )
    with pytest.raises(BadBars, match=f"{re.escape(message)}$"):
        read(tmp_path / name)
