"""Each market by its own hours, and bars in every way that feeds stamp them."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from live import FLAT, Clock, Live, bar_at, message, unknown_allowed
from replayed import Record, counts
from synthetic import random_bars

from hrm_runtime import (
    BadBars,
    Bar,
    Bars,
    LiveEngine,
    LiveSettings,
    Model,
    Reason,
    TradingHours,
    Untrusted,
)
from hrm_runtime.live.replay import replay

DAY, HOUR, COUNT = 86_400, 3600, 230
DAILY = {"instrument": "Alpha", "timeframe": "D"}
HOURLY = {"instrument": "Alpha", "timeframe": "60"}
NEW_YORK = TradingHours(
    ["09:30-16:00"],
    "America/New_York",
    holidays=["2024-02-19"],
    special={"2024-03-12": ["09:30-13:00"]},  # half a day
)
FUTURES = TradingHours(["18:00-17:00"], "America/New_York", weekdays=[6, 0, 1, 2, 3])
SAO_PAULO = TradingHours(["10:00-17:00"], "America/Sao_Paulo")
HONG_KONG = ["09:30-12:00", "13:00-16:00"]
WAYS = ("date in UTC", "midnight", "opening")


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def stamp(hours: TradingHours, way: str, day: date) -> int:
    """Of the daily bar of a date, written out for the hours of these tests."""
    zone = ZoneInfo(hours.time_zone)
    if way == "date in UTC":
        return int(datetime.combine(day, time(), UTC).timestamp())
    if way == "midnight":
        return int(datetime.combine(day, time(), zone).timestamp())
    opening = time.fromisoformat(hours.sessions[0].split("-")[0])
    evening = timedelta(opening.hour > 12)
    return int(datetime.combine(day - evening, opening, zone).timestamp())


def daily(hours: TradingHours, way: str, last: str, count: int = COUNT) -> Bars:
    """The `count` daily bars up to the date `last`."""
    day, days = date.fromisoformat(last), list[date]()
    while len(days) < count:
        if day.weekday() < 5 and str(day) not in hours.holidays:
            days.insert(0, day)
        day -= timedelta(1)
    return stamped([stamp(hours, way, day) for day in days])


def hourly(hours: TradingHours, last: str) -> Bars:
    """The bars up to local time `last`, first ones stamped with their opening."""
    end = at(last, hours.time_zone)
    openings = [one for one in range(end - 90 * DAY, end + 1, 1800) if hours.closing(one, HOUR)]
    closings = {hours.closing(one, HOUR): one for one in openings}
    return stamped(list(closings.values())[-COUNT:])


def stamped(stamps: list[int]) -> Bars:
    walk = random_bars(len(stamps), seed=17)
    return Bars(stamps, walk.open, walk.high, walk.low, walk.close)


@pytest.fixture(scope="session")
def any_name(model: Model) -> Model:
    return unknown_allowed(model)


# a daily bar's day


@pytest.mark.parametrize("way", WAYS)
def test_a_candle_of_the_day_that_trades_does_not_enter_and_the_finished_one_decides(
    live: Live, any_name: Model, clock: Clock, way: str
) -> None:
    bars = daily(NEW_YORK, way, "2024-03-08")
    friday, before = bars.newest(), bars[:-1]
    engine = live(any_name, hours=NEW_YORK)
    clock.now = at("2024-03-08 11:00", "America/New_York")
    engine.feed(before, **DAILY)
    candle = friday._replace(high=friday.high + 1.0, close=friday.high + 1.0)
    assert engine.decide(candle, FLAT, **DAILY).reason is Reason.FUTURE
    assert engine.health().streams["Alpha", "D"].newest == before.datetime[-1]
    clock.now = at("2024-03-08 16:00", "America/New_York")
    decision = engine.decide(friday, FLAT, **DAILY)
    assert decision == any_name.decide(bars, FLAT, **DAILY)
    assert decision.reason is Reason.OK


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("hours", "last", "closings"),
    [
        (
            NEW_YORK,
            "2024-03-12",
            ["2024-03-07 21:00", "2024-03-08 21:00", "2024-03-11 20:00", "2024-03-12 17:00"],
        ),
        (
            FUTURES,
            "2024-11-05",
            ["2024-10-31 21:00", "2024-11-01 21:00", "2024-11-04 22:00", "2024-11-05 22:00"],
        ),
        (
            SAO_PAULO,  # on the night to 2017-10-15 there is no midnight
            "2017-10-17",
            ["2017-10-12 20:00", "2017-10-13 20:00", "2017-10-16 19:00", "2017-10-17 19:00"],
        ),
    ],
    ids=["New York", "futures", "Sao Paulo"],
)
def test_daily_bars_decide_at_their_close_and_not_a_moment_before(
    live: Live,
    any_name: Model,
    clock: Clock,
    hours: TradingHours,
    last: str,
    closings: list[str],
    way: str,
) -> None:
    bars = daily(hours, way, last)
    engine = live(any_name, hours=hours, clock_skew=0.0)
    first = COUNT - len(closings)
    clock.now = at(closings[0]) - HOUR
    engine.feed(bars[:first], **DAILY)
    for number, closing in enumerate(closings, first):
        bar = bar_at(bars, number)
        clock.now = at(closing) - 1
        assert engine.decide(bar, FLAT, **DAILY).reason is Reason.FUTURE
        with pytest.raises(Untrusted, match="which closes at"):
            engine.feed(bar, **DAILY)
        clock.now = at(closing)
        found = engine.decide(bar, FLAT, **DAILY)
        assert found == any_name.decide(bars[: number + 1], FLAT, **DAILY)
        assert found.reason is Reason.OK
        assert engine.health().streams["Alpha", "D"].age_s == 0.0


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("date in UTC", "midnight", Reason.BAD_INPUT),
        ("date in UTC", "opening", Reason.BAD_INPUT),
        ("midnight", "opening", Reason.BAD_INPUT),
        ("midnight", "date in UTC", Reason.OUT_OF_ORDER),
        ("opening", "date in UTC", Reason.OUT_OF_ORDER),
        ("opening", "midnight", Reason.OUT_OF_ORDER),
    ],
)
def test_a_day_in_a_second_way_to_stamp_it_is_refused(
    live: Live, any_name: Model, clock: Clock, first: str, second: str, reason: Reason
) -> None:
    bars = daily(NEW_YORK, first, "2024-03-08")
    again = bars.newest()._replace(datetime=stamp(NEW_YORK, second, date(2024, 3, 8)))
    engine = live(any_name, hours=NEW_YORK)
    clock.now = at("2024-03-08 21:00")
    engine.feed(bars, **DAILY)
    assert engine.decide(again, FLAT, **DAILY).reason is reason
    with pytest.raises(
        BadBars, match=r"within that of 2024-03-08 .* s after it: another way to stamp it"
    ):
        engine.feed(again, **DAILY)
    assert engine.health().streams["Alpha", "D"].newest == bars.datetime[-1]
    assert engine.decide(bars.newest(), FLAT, **DAILY).reason is Reason.OK


@pytest.mark.parametrize(
    ("moment", "found"),
    [
        ("2024-03-08 21:00", "2024-03-08 21:00"),  # the close
        ("2024-03-08 12:00", "2024-03-08 12:00"),
        ("2024-03-09 00:00", "2024-03-09 00:00"),  # a Saturday
        ("2024-02-19 00:00", "2024-02-19 00:00"),  # a holiday
    ],
)
def test_a_daily_bar_that_is_stamped_otherwise_is_refused_with_the_ways_that_there_are(
    live: Live, any_name: Model, clock: Clock, moment: str, found: str
) -> None:
    last = "2024-02-16" if moment < "2024-03" else "2024-03-07"
    bars = daily(NEW_YORK, "date in UTC", last)
    engine = live(any_name, hours=NEW_YORK)
    clock.now = at(moment) + 1
    engine.feed(bars, **DAILY)
    given = bars.newest()._replace(datetime=at(moment))
    assert engine.decide(given, FLAT, **DAILY).reason is Reason.BAD_INPUT
    assert message(engine, ("Alpha", "D")) == (
        "bar: expected a trading day's, stamped with the opening of its first session, or with its "
        f"date at 00:00 UTC or at midnight in America/New_York, found {found} UTC: another way to "
        "stamp, or a session that hours do not know"
    )
    assert engine.health().streams["Alpha", "D"].newest == bars.datetime[-1]


# grids


def decided(engine: LiveEngine, clock: Clock, bar: Bar, close: str, zone: str) -> Reason:
    """At the close of a bar of an hour, which is refused as long as it is open."""
    clock.now = at(close, zone) - 1
    assert engine.decide(bar, FLAT, **HOURLY).reason is Reason.FUTURE
    clock.now = at(close, zone)
    return engine.decide(bar, FLAT, **HOURLY).reason


def test_bars_that_start_again_after_lunch_decide(
    live: Live, any_name: Model, clock: Clock
) -> None:
    zone = "Asia/Hong_Kong"
    hours = TradingHours(HONG_KONG, zone, grid="session")
    bars = hourly(hours, "2024-11-13 14:00")
    engine = live(any_name, hours=hours, clock_skew=0.0)
    clock.now = at("2024-11-13 11:30", zone)
    engine.feed(bars[:-3], **HOURLY)
    for number, close in ((-3, "12:00"), (-2, "14:00"), (-1, "15:00")):
        bar = bar_at(bars, number)
        assert decided(engine, clock, bar, f"2024-11-13 {close}", zone) is Reason.OK
    openings = [at(f"2024-11-13 {opening}", zone) for opening in ("11:30", "13:00", "14:00")]
    assert bars.datetime[-3:].tolist() == openings


@pytest.mark.parametrize("first", ["09:30", "09:00"], ids=["opening", "of the grid"])
def test_the_short_first_bar_of_the_clock_decides_by_either_stamp(
    live: Live, any_name: Model, clock: Clock, first: str
) -> None:
    zone = "America/New_York"
    hours = TradingHours(["09:30-16:00"], zone, grid="clock")
    bars = hourly(hours, "2024-03-11 10:00")
    opening, after = bar_at(bars, -2), bars.newest()
    assert opening.datetime == at("2024-03-11 09:30", zone)
    opening = opening._replace(datetime=at(f"2024-03-11 {first}", zone))
    engine = live(any_name, hours=hours, clock_skew=0.0)
    clock.now = at("2024-03-08 16:00", zone)
    engine.feed(bars[:-2], **HOURLY)
    assert decided(engine, clock, opening, "2024-03-11 10:00", zone) is Reason.OK
    assert decided(engine, clock, after, "2024-03-11 11:00", zone) is Reason.OK


def test_the_short_first_bar_of_the_clock_is_not_taken_twice(
    live: Live, any_name: Model, clock: Clock
) -> None:
    zone = "America/New_York"
    hours = TradingHours(["09:30-16:00"], zone, grid="clock")
    bars = hourly(hours, "2024-03-11 09:30")
    opening = bars.newest()
    alias = opening._replace(datetime=opening.datetime - 1800)
    clock.now = at("2024-03-11 10:00", zone)
    engine = live(any_name, hours=hours)
    engine.feed(bars[:-1], **HOURLY)
    assert engine.decide(alias, FLAT, **HOURLY).reason is Reason.OK
    assert engine.decide(opening, FLAT, **HOURLY).reason is Reason.BAD_INPUT
    assert message(engine, ("Alpha", "60")) == (
        "bars: expected bars of 3600 s, found 2024-03-11 13:30 UTC within that of 2024-03-11 13:00 "
        "UTC, 1800 s after it: another way to stamp it"
    )
    engine = live(any_name, hours=hours)
    engine.feed(bars, **HOURLY)
    assert engine.decide(alias, FLAT, **HOURLY).reason is Reason.OUT_OF_ORDER
    with pytest.raises(BadBars, match="another way to stamp it"):
        engine.feed(alias, **HOURLY)


def test_the_part_of_a_bar_before_a_break_within_it_does_not_enter(
    live: Live, any_name: Model, clock: Clock
) -> None:
    zone = "Asia/Shanghai"
    hours = TradingHours(["09:00-10:15", "10:30-11:30", "13:30-15:00"], zone, grid="clock")
    two_days = stamped([at(f"2024-03-{day:02} {hour}:00", zone) for day in (7, 8)
                    for hour in ("09", "10", "11", "13", "14")])  # fmt: skip
    bars = stamped([one - 86_400 * 7 * back for back in reversed(range(23))
                    for one in two_days.datetime.tolist()][:-3])  # fmt: skip
    ten = bars.newest()
    assert ten.datetime == at("2024-03-08 10:00", zone)
    engine = live(any_name, hours=hours, stale_after={"60": 60})
    clock.now = at("2024-03-08 10:15", zone)
    engine.feed(bars[:-1], **HOURLY)
    assert engine.decide(ten, FLAT, **HOURLY).reason is Reason.FUTURE
    clock.now = at("2024-03-08 11:00", zone)
    assert engine.decide(ten, FLAT, **HOURLY).reason is Reason.OK
    assert engine.decide(ten._replace(datetime=ten.datetime + 1800), FLAT, **HOURLY).reason is (
        Reason.BAD_INPUT
    )
    assert message(engine, ("Alpha", "60")).endswith("another way to stamp it")


def test_weeks_that_came_one_by_one_replay_from_each_file(
    record: Record, any_name: Model, clock: Clock, folder: Path
) -> None:
    weekly = {"instrument": "Alpha", "timeframe": "W"}
    monday = at("2024-01-08")
    bars = stamped([monday - 7 * DAY * back for back in reversed(range(COUNT))])
    clock.now = monday + 60.0 * DAY
    files = {"file_mb": 1e-6, "files": 1000}
    with record(any_name, files=files) as engine:
        engine.feed(bars, **weekly)
        for days in range(2, 16, 2):
            later = bars.newest()._replace(datetime=monday + days * DAY)
            if days in (2, 10, 12):  # a short step is taken, a second one is not
                engine.feed(later, **weekly)
                continue
            with pytest.raises(BadBars, match=r"172800 s after it: another timeframe$"):
                engine.feed(later, **weekly)
    for file in sorted(folder.glob("*.sqlite")):
        assert replay(file, [any_name]).difference is None


# markets

COIN = TradingHours()
MARKETS = {"Beta": COIN}
BETA = {"instrument": "Beta", "timeframe": "60"}


def test_each_instrument_trades_by_the_hours_of_its_market(
    record: Record, any_name: Model, clock: Clock, folder: Path
) -> None:
    zone = "America/New_York"
    shares = hourly(NEW_YORK, "2024-03-11 09:30")
    coins = stamped([at("2024-03-11 13:00") - HOUR * back for back in reversed(range(COUNT))])
    with record(any_name, hours=NEW_YORK, markets=MARKETS, clock_skew=0.0) as engine:
        clock.now = at("2024-03-11 09:00", zone)
        engine.feed(shares[:-1], **HOURLY)
        engine.feed(coins[:-1], **BETA)
        clock.now = float(coins.newest().datetime + HOUR)  # over a weekend and a night
        coin = engine.decide(coins.newest(), FLAT, **BETA)
        assert engine.decide(shares.newest(), FLAT, **HOURLY).reason is Reason.FUTURE
        night = coins.newest()._replace(datetime=int(clock.now) - HOUR)
        assert engine.decide(night, FLAT, **HOURLY).reason is Reason.BAD_INPUT
        clock.now = at("2024-03-11 10:30", zone)
        share = engine.decide(shares.newest(), FLAT, **HOURLY)
    assert coin == any_name.decide(coins, FLAT, **BETA)
    assert share == any_name.decide(shares, FLAT, **HOURLY)
    assert (coin.reason, share.reason) == (Reason.OK, Reason.OK)
    assert counts(replay(folder, [any_name])) == (2, 2, 0, 0)


def test_the_hours_of_markets_are_journalled() -> None:
    settings = LiveSettings(hours=NEW_YORK, markets={"Beta": COIN, "Gamma": FUTURES})
    document = settings.document()
    again = LiveSettings.from_document(document)
    assert again.document() == document
    assert again.hours_of("Alpha").document() == NEW_YORK.document()
    assert again.hours_of("Beta").document() == COIN.document()
    assert again.hours_of("Gamma").document() == FUTURES.document()


def test_an_earlier_journal_has_one_market() -> None:
    document = LiveSettings(hours=NEW_YORK).document()
    del document["markets"]
    del document["hours"]["grid"]
    again = LiveSettings.from_document(document)
    assert again.markets == {}
    assert again.hours_of("Alpha").document() == NEW_YORK.document()
