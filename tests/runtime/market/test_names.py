import pytest

from hrm_runtime.market.names import nearest, nearest_or_some, not_known, seconds_of, timeframe_of

MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        (1, "1s S 1sec"),
        (30, "30s 30S 30sec S30"),
        (MINUTE, "1 01 1m 1min 1T T min minute 60s M1"),
        (5 * MINUTE, "5 05 5m 5min 5T 5t 5Min 5minute 5minutes M5 300S"),
        (15 * MINUTE, "15 15m 15min 15T 15minute M15"),
        (HOUR, "60 60m 1h 1H h H 60min 60T 60minute 1hour 1hr H1 hour"),
        (4 * HOUR, "240 4h 4H 240min H4 4hours"),
        (DAY, "D d 1D 1d day 1day 1440 24h D1"),
        (WEEK, "W w 1W 1w week 1week 10080 7D 168h W1"),
    ],
)
def test_a_length_has_many_spellings(seconds: int, names: str) -> None:
    assert {name: seconds_of(name) for name in names.split()} == dict.fromkeys(
        names.split(), seconds
    )


def test_a_count_may_stand_apart_from_its_unit() -> None:
    assert [seconds_of(name) for name in ("5 mins", "1 day", "1 hour")] == [300, DAY, HOUR]


@pytest.mark.parametrize("name", ["M", "1M", "3M", "1mo", "1MS", "ME", "1y", "Y", "Q", "MN1"])
def test_months_and_years_have_no_length(name: str) -> None:
    assert seconds_of(name) is None


@pytest.mark.parametrize("name", ["2w", "8d", "D8", "10081", "43200", "999999"])
def test_nothing_is_longer_than_a_week(name: str) -> None:
    assert seconds_of(name) is None


@pytest.mark.parametrize(
    "name",
    ["", " ", "0", "000", "0m", "0D", "-5", "+5", "1.5", "1.5h", " 5", "5 ", "5  m", "5_0", "m",
     "5x", "h5m", "5m5", "weekly", "\u0665", "\u00b2", "5\n", "D\n", "1234567"],
)  # fmt: skip
def test_a_name_that_says_no_length_has_none(name: str) -> None:
    assert seconds_of(name) is None


# what a timeframe is called


@pytest.mark.parametrize(
    ("name", "known", "called"),
    [
        ("5m", {"5": 300, "15": 900}, "5"),
        ("5", {"5m": 300}, "5m"),
        ("1440", {"D": DAY}, "D"),
        ("5m", {"five": 300}, "five"),
        ("5m", {"5m": 301, "5": 300}, "5m"),
        ("7d", {"weekly": WEEK}, "weekly"),
    ],
)
def test_the_exact_name_comes_first_then_the_length(
    name: str, known: dict[str, int], called: str
) -> None:
    assert timeframe_of(name, known) == called


@pytest.mark.parametrize(
    ("known", "called"), [({"five": 300, "fuenf": 300}, "5"), ({"five": 300, "5": 300}, "5")]
)
def test_of_several_of_one_length_none_is_meant_but_the_usual_spelling(
    known: dict[str, int], called: str
) -> None:
    assert timeframe_of("5m", known) == called


@pytest.mark.parametrize(
    ("name", "called"),
    [("5min", "5"), ("05", "5"), ("1h", "60"), ("1d", "D"), ("1w", "W"), ("2D", "2880"),
     ("90s", "90s"), ("120s", "2"), ("tea", "tea"), ("1M", "1M"), ("unknown", "unknown")],
)  # fmt: skip
def test_one_that_is_not_known_has_its_usual_spelling(name: str, called: str) -> None:
    assert timeframe_of(name, {"15": 900}) == called
    assert timeframe_of(called, {"15": 900}) == called


def test_the_usual_spelling_is_not_taken_from_one_of_another_length() -> None:
    assert timeframe_of("5m", {"5": 301}) == "5m"


# what was meant


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bank_nifty", "the closest is Bank_Nifty, which differs in upper and lower case"),
        ("BANKNIFTY", "the closest is Bank_Nifty, which is spelt otherwise"),
        ("bank-nifty", "the closest is Bank_Nifty, which is spelt otherwise"),
        ("EURUSD", "the closest is EUR/USD, which is spelt otherwise"),
        ("Nitfy", "the closest is Nifty"),
        ("Reliance", None),
        ("5", None),
    ],
)
def test_what_a_name_was_meant_to_be_is_told(name: str, told: str | None) -> None:
    assert nearest(name, {"Nifty", "Bank_Nifty", "EUR/USD", "15"}) == told


@pytest.mark.parametrize(
    ("known", "told"), [("", "none"), ("ABCDE", "A, B, C, D, E"), ("ABCDEF", "A, B, C, D, E, ...")]
)
def test_of_many_names_a_few_are_told(known: str, told: str) -> None:
    assert nearest_or_some("Reliance", known) == f"known are {told}"


def test_a_refusal_names_what_was_expected_and_what_was_probably_meant() -> None:
    told = (
        "instrument: expected one of Nifty, Tcs; found 'NIFTY', which this artifact does not know"
    )
    assert not_known("instrument", "NIFTY", {"Nifty", "Tcs"}, "this artifact") == (
        f"{told}; the closest is Nifty, which differs in upper and lower case"
    )
    assert not_known("timeframe", "15", {"5"}, "it") == (
        "timeframe: expected one of 5; found '15', which it does not know"
    )
