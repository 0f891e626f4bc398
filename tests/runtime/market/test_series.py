import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import random_bars
from three_bars import assert_equal, bars

from hrm_runtime import BadBars, Bars
from hrm_runtime.market.csv_files import write_csv
from hrm_runtime.market.series import (
    SkippedSeries,
    none_left,
    read_bars,
    read_series,
    series_file,
    series_files,
    series_name,
)


def _denied(*arguments: Any, **options: Any) -> None:
    raise PermissionError(13, "Permission denied")


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
        (("features_Nifty", "5"), "%66eatures_Nifty_5.csv"),
        (("features_", "5"), "%66eatures__5.csv"),
        (("features", "5"), "features_5.csv"),
        (("Features_Nifty", "5"), "Features_Nifty_5.csv"),
    ],
)
def test_a_file_is_named_after_its_series(name: tuple[str, str], file: str) -> None:
    assert series_file(*name) == file
    assert series_name(file) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("features_Nifty_5.csv", ("Nifty", "5")),
        ("folder/features_Bank_Nifty_D.parquet", ("Bank_Nifty", "D")),
        ("features_EUR%2FUSD_60.csv", ("EUR/USD", "60")),
        ("features_features_Nifty_5.csv", ("features_Nifty", "5")),
        ("features_%66eatures_Nifty_5.csv", ("features_Nifty", "5")),
        ("features__5.csv", ("features_", "5")),
    ],
)
def test_a_host_s_file_of_features_is_of_the_series_behind_that(
    path: str, name: tuple[str, str]
) -> None:
    assert series_name(path) == name


def test_bars_and_a_host_s_features_of_one_series_are_two_files_of_it(tmp_path: Path) -> None:
    for name in ("Nifty_5.csv", "features_Nifty_5.csv"):
        write_csv(bars(), tmp_path / name)
    message = (
        r"features_Nifty_5\.csv: expected one file per series, .*[/\\]Nifty_5\.csv holds it too"
    )
    with pytest.raises(BadBars, match=message):
        read_series(tmp_path)


NAME = st.text(min_size=1).filter(lambda name: name.isprintable() and bool(name.strip()))


@given(NAME | NAME.map("features_".__add__), NAME)
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


@pytest.mark.parametrize("other", ["Nifty_5m.csv", "Nifty_05.csv", "Nifty_M5.csv"])
def test_one_series_under_two_spellings_of_its_timeframe_is_refused(
    tmp_path: Path, other: str
) -> None:
    for name in ("Nifty_5.csv", other):
        write_csv(bars(), tmp_path / name)
    with pytest.raises(BadBars, match=r"one file per series, .*Nifty_\w+\.csv holds it too"):
        read_series(tmp_path)


def test_a_series_is_called_as_its_file_is(tmp_path: Path) -> None:
    for name in ("Nifty_5m.csv", "Nifty_1M.csv", "Nifty_1h.csv"):
        write_csv(bars(), tmp_path / name)
    assert list(read_series(tmp_path)) == [("Nifty", "1M"), ("Nifty", "1h"), ("Nifty", "5m")]


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


def test_a_path_where_nothing_is_is_not_taken_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file/Nifty_5.csv"):
        with pytest.raises(BadBars, match=rf"{name}: expected a bars file or .* nothing there"):
            read_series(tmp_path / name)


def test_one_path_is_as_good_as_a_list_of_one(tmp_path: Path) -> None:
    write_csv(random_bars(3), tmp_path / "Alpha_5.csv")
    (name,) = read_series(tmp_path)
    assert name == ("Alpha", "5")
    assert read_series(str(tmp_path / "Alpha_5.csv")).keys() == {name}


def test_series_that_were_all_skipped_are_told_with_their_reasons() -> None:
    skipped = [SkippedSeries("Alpha", "5", "too short"), SkippedSeries("Beta", "D", "stands still")]
    assert none_left(skipped) == (
        "expected at least one series that something can be done with, found none: "
        "Alpha_5: too short; Beta_D: stands still"
    )
