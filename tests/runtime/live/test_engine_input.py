import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from artifact_copy import ArtifactCopy
from live import (
    BARS,
    BEFORE,
    FLAT,
    LINE,
    NEEDED,
    NEWEST,
    ON,
    Clock,
    Live,
    bar_at,
    columns,
    message,
    unknown_allowed,
)
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    Account,
    BadAccount,
    BadBars,
    BadInput,
    Bars,
    InferenceFailed,
    LiveEngine,
    Model,
    Reason,
    TradingHours,
    UnknownInstrument,
    UnknownTimeframe,
    Untrusted,
    load,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.market.actions import LEGAL, Action, Side


def without(bars: Bars, number: int) -> Bars:
    """`bars` with one of them left out."""
    return Bars(**{name: np.delete(column, number) for name, column in columns(bars).items()})


# bars that do not belong


def bar(**changes: Any) -> dict[str, Any]:
    """The newest bar, some values changed; without those that are None."""
    return {n: v for n, v in {**NEWEST._asdict(), **changes}.items() if v is not None}


BAD_BARS = {
    "NaN": (bar(close=np.nan), "bad_input", "expected finite prices between 1e-12 and 1e\\+12"),
    "infinite": (bar(high=np.inf), "bad_input", "expected finite prices"),
    "zero": (bar(low=0.0), "bad_input", "expected finite prices"),
    "negative": (bar(open=-1.0), "bad_input", "expected finite prices"),
    "inverted": (bar(low=200.0, high=50.0), "bad_input", "expected low <= open, close <= high"),
    "text": (bar(close="101.5"), "bad_input", "expected numbers in column close: found <U5"),
    "list": (bar(close=[1.0, 2.0]), "bad_input", "expected column close to have one axis"),
    "truth": (bar(close=True), "bad_input", "expected numbers in column close: found bool"),
    "missing": (bar(close=None), "bad_input", "missing close"),
    "empty": ({}, "bad_input", "missing datetime, open, high, low, close; found none"),
    "none": (None, "bad_input", "expected a Bar or a mapping, found NoneType"),
    "tuple": (tuple(NEWEST), "bad_input", "expected a Bar or a mapping, found tuple"),
    "bars": (BARS, "bad_input", "expected a Bar or a mapping, found Bars"),
    "milliseconds": (bar(datetime=10**12), "bad_input", "expected datetime in whole epoch seconds"),
    "half a second": (bar(datetime=NEWEST.datetime + 0.5), "bad_input", "whole epoch seconds"),
    "conflicting": (
        BEFORE._replace(close=BEFORE.close + 0.01),
        "bad_input",
        "bar: expected what was given for 2023-11-22 05:10 UTC before",
    ),
    "a minute": (
        bar(datetime=BEFORE.datetime + 60),
        "bad_input",
        "expected bars of 300 s, found .* 05:11 UTC within that of .* 05:10 UTC, 60 s after",
    ),
    "old": (bar_at(BARS, -3), "out_of_order", "bar: expected one after 2023-11-22 05:10 UTC, fou"),
    "before all": (bar(datetime=31_536_000), "out_of_order", "found 1971-01-01 00:00 UTC; to fill"),
    "a counter": (bar(datetime=7), "bad_input", "found 7 in row 0, which looks like a counter, or"),
    "future": (bar(datetime=NEWEST.datetime + 300), "future", "which closes at 2023-11-22 05:25 U"),
    "far future": (bar(datetime=10**11 - 1), "future", "expected one closed by 2023-11-22 05:20 U"),
}


@pytest.mark.parametrize(("given", "reason", "told"), BAD_BARS.values(), ids=BAD_BARS)
def test_a_bad_bar_is_held_and_is_not_taken_in(
    engine: LiveEngine, model: Model, given: Any, reason: str, told: str
) -> None:
    assert engine.decide(given, FLAT, **ON) == hold(Reason(reason), model.id)
    assert re.search(told, message(engine))
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


@pytest.mark.parametrize(("behind", "reason"), [(2.0, Reason.OK), (2.1, Reason.FUTURE)])
def test_the_clock_may_be_a_little_behind(
    engine: LiveEngine, clock: Clock, behind: float, reason: Reason
) -> None:
    clock.now -= behind
    assert engine.decide(NEWEST, FLAT, **ON).reason is reason


@pytest.mark.parametrize("clock_skew", [0, 0.5])
def test_how_much_behind_is_a_setting(live: Live, clock: Clock, clock_skew: float) -> None:
    engine = live(clock_skew=clock_skew)
    engine.feed(BARS[:-1], **ON)
    clock.now -= clock_skew + 0.1
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.FUTURE
    clock.now += 0.1
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.OK


@pytest.mark.parametrize(
    ("timeframe", "seconds", "stale_after", "latest"),
    [
        ("5", 300, {}, 60.0),
        ("15", 900, {}, 60.0),
        ("1", 60, {}, 30.0),
        ("5", 300, {"5": 10, "15": 500}, 10.0),
        ("15", 900, {"5": 10, "15": 500}, 500.0),
        ("5", 300, {"5": 0}, 0.0),
    ],
)
def test_a_bar_is_stale_after_so_many_seconds(
    live: Live,
    clock: Clock,
    model: Model,
    timeframe: str,
    seconds: int,
    stale_after: dict[str, float],
    latest: float,
) -> None:
    engine = live(unknown_allowed(model), stale_after=stale_after)
    bars, on = random_bars(NEEDED + 1, seconds=seconds), {**ON, "timeframe": timeframe}
    clock.now = bar_at(bars, -1).datetime + seconds + latest
    engine.feed(bars[:-1], **on)
    assert engine.decide(bar_at(bars, -1), FLAT, **on).reason is Reason.OK
    clock.now += 0.25
    other = Account.flat(9e5)
    assert engine.decide(bar_at(bars, -1), other, **on).reason is Reason.STALE
    assert message(engine, ("Alpha", timeframe)) == (
        f"bar: expected one closed at most {latest:g} s ago, found {latest + 0.25:.1f} s; pass "
        "bars when they close, feed older ones"
    )


def test_a_stale_bar_is_taken_in(live: Live, model: Model) -> None:
    engine = live()
    engine.feed(BARS[:-2], **ON)
    assert engine.decide(BEFORE, FLAT, **ON).reason is Reason.STALE
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


def test_a_clock_that_tells_no_time_is_not_trusted(engine: LiveEngine, clock: Clock) -> None:
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.OK
    clock.now = np.nan
    assert engine.decide(NEWEST, ACCOUNTS["long"], **ON).reason is Reason.STALE


def test_the_bar_after_a_hole_is_held_and_the_next_decides(
    live: Live, model: Model, clock: Clock
) -> None:
    engine = live()
    engine.feed(BARS[:-3], **ON)
    clock.now -= 300
    assert engine.decide(BEFORE, FLAT, **ON) == hold(Reason.GAP, model.id)
    assert message(engine) == (
        "bars: expected the one that follows 2023-11-22 05:00 UTC, found 2023-11-22 05:10 UTC; "
        "the next one decides again, or feed what was missed"
    )
    clock.now += 300
    expected = model.decide(without(BARS, -3), FLAT, **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == expected
    assert expected != model.decide(BARS, FLAT, **ON)


def test_what_was_missed_can_be_fed_and_the_bar_decided_anew(live: Live, model: Model) -> None:
    engine = live()
    engine.feed(BARS[:-2], **ON)
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.GAP
    engine.feed(BEFORE, **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


SESSIONS = TradingHours(["05:00-05:10", "05:15-05:18"])


def test_hours_say_what_a_gap_is_and_when_a_bar_is_closed(
    live: Live, model: Model, clock: Clock
) -> None:
    engine = live(hours=SESSIONS)
    engine.feed(without(BARS, -2)[:-1], **ON)
    clock.now = NEWEST.datetime + 180  # the session is shorter than the bar
    expected = model.decide(without(BARS, -2), FLAT, **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == expected


def test_a_bar_outside_trading_hours_is_refused(live: Live, clock: Clock) -> None:
    engine = live(hours=SESSIONS)
    engine.feed(BARS[:-2], **ON)
    assert engine.decide(BEFORE, FLAT, **ON).reason is Reason.BAD_INPUT
    assert message(engine) == (
        "bar: expected the opening of a bar of 300 s within trading hours, found 2023-11-22 05:10 "
        "UTC: another timeframe, or a session that hours do not know"
    )


# accounts that do not belong

HELD = ACCOUNTS["long"]

BAD_ACCOUNTS = {
    "none": (None, "account: expected an Account or a mapping, found NoneType"),
    "number": (5.0, "account: expected an Account or a mapping, found float"),
    "missing": ({"capital": 1.0}, "account: expected the values capital, position_quantity"),
    "unknown": ({**vars(FLAT), "equity": 1.0}, "found capital, .*, equity"),
    "text": ({**vars(FLAT), "capital": "1"}, "account.capital: expected a number, found '1'"),
    "NaN": ({**vars(FLAT), "capital": np.nan}, "account.capital: expected a finite number"),
    "contradiction": ({**vars(FLAT), "position_quantity": 2.0}, "expected is_position_open to agr"),
    "no capital": ({**vars(FLAT), "capital": 0.0}, "account: expected capital > 0"),
    "no value yet": ({**vars(FLAT), "capital": 1.8e307}, "expected at most 1e.15, found "),
    "a premium": (
        {**vars(HELD), "entry_price": 1.5},
        "account.entry_price: expected ",
    ),
    "a profit": ({**vars(HELD), "unrealized_pnl": 1e9}, "account.unrealized_pnl: expected "),
}


@pytest.mark.parametrize(("account", "told"), BAD_ACCOUNTS.values(), ids=BAD_ACCOUNTS)
def test_a_bad_account_is_held_and_its_bar_is_taken_in(
    live: Live, model: Model, clock: Clock, account: Any, told: str
) -> None:
    engine = live()
    engine.feed(BARS[:-2], **ON)
    clock.now -= 300
    assert engine.decide(BEFORE, account, **ON) == hold(Reason.BAD_INPUT, model.id)
    assert re.search(told, message(engine))
    clock.now += 300
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


@pytest.mark.parametrize("capital", [0.0, -5_000.0])
def test_a_position_is_decided_for_though_losses_used_up_the_capital(
    engine: LiveEngine, model: Model, capital: float
) -> None:
    account = replace(HELD, capital=capital, unrealized_pnl=-40.0)
    found = engine.decide(NEWEST, account, **ON)
    assert found == model.decide(BARS, account, **ON)
    assert found.reason is Reason.OK
    assert found.action in LEGAL[Side.LONG]


def test_a_host_that_gives_its_free_cash_is_told_once_and_decided_for(
    live: Live, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    engine = live()
    engine.feed(BARS[:-1], **ON)
    lots = abs(HELD.position_quantity)
    cost = lots * model.contract.instrument("Alpha").cost_per_lot(HELD.entry_price)
    with caplog.at_level("WARNING", "hrm_runtime"):
        for capital in (cost, 0.51 * cost):
            engine.decide(NEWEST, replace(HELD, capital=capital), **ON)
        assert not caplog.records
        for capital in (0.49 * cost, 0.0):
            account = replace(HELD, capital=capital)
            assert engine.decide(NEWEST, account, **ON) == model.decide(BARS, account, **ON)
    (record,) = caplog.records
    assert record.hrm == {  # type: ignore[attr-defined]
        "event": "capital",
        **ON,
        "why": (
            f"account.capital: {0.49 * cost:.10g} is less than half of what {lots:.10g} lots cost "
            f"at {HELD.entry_price:.10g}, {cost:.10g}: give what was realised, not what is free, "
            "unless the position is on margin"
        ),
    }


# names


def test_unknown_names_are_held(engine: LiveEngine, model: Model) -> None:
    found = [
        engine.decide(NEWEST, FLAT, instrument=instrument, timeframe=timeframe)
        for instrument, timeframe in (("Gamma", "5"), ("unknown", "5"), ("Alpha", "1"))
    ]
    instrument, timeframe = Reason.UNKNOWN_INSTRUMENT, Reason.UNKNOWN_TIMEFRAME
    assert found == [hold(reason, model.id) for reason in (instrument, instrument, timeframe)]
    assert list(engine.health().streams) == [LINE]


def test_unknown_names_are_decided_for_where_the_contract_allows_them(
    live: Live, model: Model, copy_artifact: ArtifactCopy, clock: Clock
) -> None:
    copy_artifact.reseal(allow_unknown_instrument=True, allow_unknown_timeframe=True)
    open_model, on = load(copy_artifact.path), {"instrument": "Gamma", "timeframe": "1"}
    bars = random_bars(NEEDED, seconds=60)
    clock.now = bar_at(bars, -1).datetime + 60
    engine = live(open_model)
    engine.feed(bars[:-1], **on)
    found = engine.decide(bar_at(bars, -1), FLAT, **on)
    assert found == open_model.decide(bars, FLAT, **on)
    assert found.reason is Reason.OK
    assert found.model_id == open_model.id != model.id


def test_a_timeframe_without_a_length_is_unknown_even_so(live: Live, model: Model) -> None:
    engine = live(unknown_allowed(model))
    found = engine.decide(NEWEST, FLAT, instrument="Alpha", timeframe="five")
    assert found == hold(Reason.UNKNOWN_TIMEFRAME, engine.model.id)


class Grumpy:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    @property
    def __class__(self) -> Any:
        raise RuntimeError("class")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class GrumpyText(str):
    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")


NOT_NAMES = [None, 5, ["Alpha"], {("Alpha",): 5}, b"Alpha"]


@pytest.mark.parametrize("name", NOT_NAMES, ids=str)
@pytest.mark.parametrize(
    ("argument", "reason"),
    [("instrument", Reason.UNKNOWN_INSTRUMENT), ("timeframe", Reason.UNKNOWN_TIMEFRAME)],
)
def test_a_name_that_is_no_text_is_held(
    engine: LiveEngine, model: Model, name: Any, argument: str, reason: Reason
) -> None:
    assert engine.decide(NEWEST, FLAT, **{**ON, argument: name}) == hold(reason, model.id)


@pytest.mark.parametrize("argument", ["instrument", "timeframe"])
def test_a_name_that_raises_is_held(engine: LiveEngine, model: Model, argument: str) -> None:
    found = engine.decide(NEWEST, FLAT, **{**ON, argument: Grumpy()})
    assert found == hold(Reason.ERROR, model.id)


def test_a_text_that_compares_as_it_likes_is_its_text(engine: LiveEngine, model: Model) -> None:
    found = engine.decide(NEWEST, FLAT, instrument=GrumpyText("Alpha"), timeframe=GrumpyText("5"))
    assert found == model.decide(BARS, FLAT, **ON)


def test_streams_are_counted(live: Live, model: Model) -> None:
    engine = live(streams=2)
    engine.feed(BARS[:-1], **ON)
    engine.feed(BARS[:-1], instrument="Beta", timeframe="5")
    older = bar_at(BARS, -4)
    found = engine.decide(older, FLAT, instrument="Alpha", timeframe="15")
    assert found == hold(Reason.BAD_INPUT, model.id)
    with pytest.raises(BadInput, match="found another; drop one to free a place"):
        engine.feed(older, instrument="Alpha", timeframe="15")
    assert engine.decide(NEWEST, FLAT, **ON).reason is Reason.OK


def test_feeding_nothing_opens_no_stream(live: Live) -> None:
    engine = live()
    engine.feed(BARS[:0], **ON)
    assert engine.health().streams == {}
    assert engine.newest(**ON) is None


# what feed, newest and refuse say


@pytest.mark.parametrize(
    ("bars", "error", "told"),
    [
        (5, BadBars, "bars: expected a mapping of columns, found int"),
        (NEWEST._replace(close=-1.0), BadBars, "expected finite prices"),
        (BEFORE._replace(close=BEFORE.close + 0.01), BadBars, "correct puts a bar in the place"),
        ({"datetime": [1]}, BadBars, "missing open, high, low, close"),
        (NEWEST._asdict(), BadBars, "expected column datetime to have one axis, found 0"),
        (NEWEST._replace(datetime=NEWEST.datetime + 300), Untrusted, "pass closed bars"),
        (NEWEST._replace(datetime=BEFORE.datetime + 60), BadBars, "another timeframe"),
    ],
)
def test_feed_raises(
    engine: LiveEngine, model: Model, bars: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        engine.feed(bars, **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)


NAMES_REFUSED = [
    ({"instrument": "Gamma"}, UnknownInstrument, "expected one of Alpha, Beta; found 'Gamma'"),
    ({"instrument": None}, UnknownInstrument, "instrument: expected a name, found None"),
    ({"timeframe": "1"}, UnknownTimeframe, "timeframe: expected one of 15, 5; found '1'"),
    ({"timeframe": 5}, UnknownTimeframe, "timeframe: expected a name, found 5"),
]


@pytest.mark.parametrize(("names", "error", "told"), NAMES_REFUSED)
def test_feed_raises_where_the_name_is_not_known(
    engine: LiveEngine, names: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        engine.feed(BARS, **{**ON, **names})


def test_newest_raises_where_the_name_is_no_text(engine: LiveEngine) -> None:
    with pytest.raises(UnknownInstrument, match=r"expected a name, found \['Alpha'\]"):
        engine.newest(instrument=["Alpha"], timeframe="5")  # type: ignore[arg-type]


REFUSED = [
    (BadInput("observation: too short"), Reason.BAD_INPUT),
    (BadAccount("account: expected more"), Reason.BAD_INPUT),
    (Untrusted(Reason.FUTURE, "bar: expected an older one"), Reason.FUTURE),
    (InferenceFailed("it failed"), Reason.ERROR),
]


@pytest.mark.parametrize(("why", "reason"), REFUSED, ids=lambda value: type(value).__name__)
def test_refusing_is_held_and_counted(
    engine: LiveEngine, model: Model, why: Exception, reason: Reason
) -> None:
    found = engine.refuse(why, **ON)
    assert (found, found.sequence) == (hold(reason, model.id), 1)
    health = engine.health()
    assert health.decisions == {(Action.HOLD, reason): 1}
    assert (health.streams[LINE].reason, health.streams[LINE].message) == (reason, str(why))
    assert health.failures == (reason is Reason.ERROR)


def test_refusing_in_the_name_of_nothing_is_held(engine: LiveEngine, model: Model) -> None:
    found = engine.refuse(BadInput("no"), instrument=["Alpha"], timeframe="5")  # type: ignore[arg-type]
    assert found == hold(Reason.UNKNOWN_INSTRUMENT, model.id)


# strict

STRICT = {
    "stale": (bar_at(BARS, -2), FLAT, Untrusted, "bar: expected one closed at most 60 s ago"),
    "out of order": (bar_at(BARS, -3), FLAT, Untrusted, "bar: expected one after"),
    "future": (bar(datetime=NEWEST.datetime + 300), FLAT, Untrusted, "pass closed bars"),
    "bad bar": (bar(low=-1.0), FLAT, BadBars, "expected finite prices"),
    "bad account": (NEWEST, None, BadAccount, "expected an Account or a mapping"),
}


@pytest.mark.parametrize(("given", "account", "error", "told"), STRICT.values(), ids=STRICT)
def test_a_strict_engine_raises_instead(
    live: Live, given: Any, account: Any, error: type[Exception], told: str
) -> None:
    engine = live(strict=True)
    engine.feed(BARS[:-1], **ON)
    with pytest.raises(error, match=told):
        engine.decide(given, account, **ON)
    assert sum(engine.health().decisions.values()) == 1


@pytest.mark.parametrize(("names", "error", "told"), NAMES_REFUSED)
def test_a_strict_engine_raises_where_the_name_is_not_known(
    live: Live, names: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        live(strict=True).decide(NEWEST, FLAT, **{**ON, **names})


def test_a_strict_engine_raises_while_warming_up_and_after_a_hole(live: Live, clock: Clock) -> None:
    engine = live(strict=True)
    engine.feed(BARS[-20:-2], **ON)
    with pytest.raises(Untrusted, match="expected 205 bars for a decision, found 19") as raised:
        engine.decide(NEWEST, FLAT, **ON)
    assert raised.value.reason is Reason.WARMING_UP
    engine.feed(BARS[:-20], **ON)
    with pytest.raises(Untrusted, match="expected the one that follows") as raised:
        engine.decide(NEWEST, FLAT, **ON)
    assert raised.value.reason is Reason.GAP


def test_a_strict_engine_raises_again_at_a_repeat(live: Live) -> None:
    engine = live(strict=True)
    engine.feed(BARS[-20:-1], **ON)
    with pytest.raises(Untrusted, match="found 20; feed history"):
        engine.decide(NEWEST, FLAT, **ON)
    with pytest.raises(Untrusted, match="found 20; feed history"):
        engine.decide(NEWEST, FLAT, **ON)
    assert engine.health().repeated == 1


@pytest.mark.parametrize(
    ("why", "error", "told"),
    [
        (BadInput("too short"), BadInput, "^too short$"),
        (KeyError("close"), InferenceFailed, "^KeyError: 'close'$"),
    ],
)
def test_a_strict_engine_raises_what_is_refused(
    live: Live, why: Exception, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        live(strict=True).refuse(why, **ON)


def test_a_strict_engine_decides_as_others_do(live: Live, model: Model) -> None:
    engine = live(strict=True)
    engine.feed(BARS[:-1], **ON)
    assert engine.decide(NEWEST, FLAT, **ON) == model.decide(BARS, FLAT, **ON)
