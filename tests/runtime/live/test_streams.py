from dataclasses import replace

import pytest
from live import BARS, FLAT, LINE, NEEDED
from parts import free_for_another
from synthetic import ACCOUNTS, random_bars

from hrm_runtime import (
    BadInput,
    Bars,
    Contract,
    LiveSettings,
    Reason,
    UnknownInstrument,
    UnknownTimeframe,
)
from hrm_runtime.artifact.decision import hold
from hrm_runtime.journal.events import Line
from hrm_runtime.live.health import StreamHealth
from hrm_runtime.live.jobs import Ask
from hrm_runtime.live.streams import Series, Streams, require_known

BETA = ("Beta", "5")
NOW = BARS.newest().datetime + 300.0


def with_bars(streams: Streams, contract: Contract, line: Line = LINE, bars: Bars = BARS) -> Series:
    """A series that has bars; it is not kept."""
    series = streams.of(line, contract)
    series.stream.feed(bars, NOW)
    return series


@pytest.fixture
def streams(contract: Contract) -> Streams:
    return Streams(LiveSettings(), contract)


@pytest.fixture
def narrow(contract: Contract) -> Contract:
    """Knows Alpha alone."""
    return replace(contract, instruments={"Alpha": contract.instruments["Alpha"]})


# which there are


def test_a_series_is_there_when_it_is_kept(streams: Streams, contract: Contract) -> None:
    series = with_bars(streams, contract)
    assert (len(streams), streams.get(LINE), streams.items()) == (0, None, [])
    streams.keep(LINE, series)
    assert (len(streams), streams.items()) == (1, [(LINE, series)])
    assert streams.get(LINE) is streams.of(LINE, contract) is series


def test_a_name_without_bars_takes_no_place(contract: Contract) -> None:
    streams = Streams(LiveSettings(streams=1), contract)
    streams.keep(BETA, streams.of(BETA, contract))
    streams.keep(LINE, with_bars(streams, contract))
    assert [line for line, _ in streams.items()] == [LINE]


def test_there_are_no_more_than_there_may_be(contract: Contract) -> None:
    streams = Streams(LiveSettings(streams=1), contract)
    series = with_bars(streams, contract)
    for _ in range(2):  # one that is there takes no other place
        streams.keep(LINE, series)
    with pytest.raises(BadInput, match="expected at most 1 streams, found another"):
        streams.keep(BETA, with_bars(streams, contract, BETA))
    assert streams.items() == [(LINE, series)]


@pytest.mark.parametrize(
    ("line", "error"), [(("Gamma", "5"), UnknownInstrument), (("Alpha", "7"), UnknownTimeframe)]
)
def test_none_is_made_of_names_that_the_contract_does_not_know(
    streams: Streams, contract: Contract, line: Line, error: type[Exception]
) -> None:
    with pytest.raises(error):
        streams.of(line, contract)


def test_one_that_is_dropped_frees_its_place(contract: Contract) -> None:
    streams = Streams(LiveSettings(streams=1), contract)
    series = with_bars(streams, contract)
    streams.keep(LINE, series)
    with streams.dropping(LINE) as dropped:
        assert dropped is series
        assert (len(streams), streams.get(LINE)) == (0, None)
    streams.keep(BETA, with_bars(streams, contract, BETA))
    told = r"^stream: expected one that has bars \(Beta 5\); found 'Alpha 5': mend the name"
    for missed in (lambda: streams.there(LINE), lambda: streams.dropping(LINE).__enter__()):
        with pytest.raises(BadInput, match=told):
            missed()
    assert [line for line, _ in streams.items()] == [BETA]


def test_none_comes_or_goes_while_another_does(streams: Streams, contract: Contract) -> None:
    with streams.in_order(LINE):
        assert not free_for_another(streams)
        streams.keep(LINE, with_bars(streams, contract))
    with streams.dropping(LINE):
        assert not free_for_another(streams)
    assert free_for_another(streams)


def test_one_that_is_there_keeps_none_from_coming(streams: Streams, contract: Contract) -> None:
    streams.keep(LINE, with_bars(streams, contract))
    with streams.in_order(LINE):
        assert free_for_another(streams)


# held to a contract


def test_a_series_that_comes_later_is_held_to_the_contract_of_then(
    streams: Streams, contract: Contract, narrow: Contract
) -> None:
    alpha, beta = with_bars(streams, contract), with_bars(streams, contract, BETA)
    with streams.held_to(narrow):
        pass
    with pytest.raises(UnknownInstrument, match="expected one of Alpha; found 'Beta'"):
        streams.keep(BETA, beta)
    streams.keep(LINE, alpha)
    assert streams.items() == [(LINE, alpha)]


def test_a_contract_that_does_not_know_one_changes_nothing(
    streams: Streams, contract: Contract, narrow: Contract
) -> None:
    streams.keep(BETA, with_bars(streams, contract, BETA))
    with pytest.raises(UnknownInstrument, match="found 'Beta'"), streams.held_to(narrow):
        pytest.fail("the artifact is exchanged")
    other = ("Beta", "15")
    bars = random_bars(5, seed=1, seconds=900)
    streams.keep(other, with_bars(streams, contract, other, bars[:1]))
    assert [line for line, _ in streams.items()] == [BETA, other]


def test_bars_of_another_length_are_another_timeframe(streams: Streams, contract: Contract) -> None:
    series = with_bars(streams, contract)
    require_known(contract, LINE, series)
    series.stream.seconds = 900
    told = "model: expected bars of 900 s in timeframe '5' as now, found 300 s"
    with pytest.raises(BadInput, match=f"^{told}$"):
        require_known(contract, LINE, series)


def test_one_that_began_meanwhile_under_another_name_is_the_same(
    streams: Streams, contract: Contract
) -> None:
    known = contract.timeframes
    renamed = replace(contract, timeframes={"15": known["15"], "5m": known["5"]})
    late, other = with_bars(streams, contract), with_bars(streams, contract, BETA)
    with streams.held_to(renamed):
        pass
    first = with_bars(streams, renamed, ("Alpha", "5m"))
    streams.keep(("Alpha", "5m"), first)
    told = "^stream: expected another than there are, found 'Alpha 5', which began meanwhile as "
    with pytest.raises(BadInput, match=told + "'Alpha 5m': call again$"):
        streams.keep(LINE, late)
    streams.keep(BETA, other)
    assert streams.items() == [(("Alpha", "5m"), first), (BETA, other)]
    assert streams.meant(BETA) == streams.meant(("Beta", "5m")) == BETA


# one of them


def test_a_series_tells_how_it_is(streams: Streams, contract: Contract) -> None:
    series = with_bars(streams, contract)
    series.reason, series.message = Reason.STALE, "too late"
    assert series.health(NOW + 7.5) == StreamHealth(
        newest=BARS.newest().datetime,
        age_s=7.5,
        bars=NEEDED,
        ready=True,
        reason=Reason.STALE,
        message="too late",
        unknown=None,
    )


def test_an_ask_is_remembered_by_its_bar_and_account_once_it_is_answered(
    streams: Streams, contract: Contract
) -> None:
    series, ask = with_bars(streams, contract), Ask(None, None)
    assert series.remembered(300, FLAT) is None
    ask.stamp, ask.read, series.asked = 300, FLAT, ask
    assert series.remembered(300, FLAT) is None
    ask.answer.set_result(hold(Reason.GAP, "a" * 64))
    assert series.remembered(300, replace(FLAT)) is ask
    assert series.remembered(600, FLAT) is None
    assert series.remembered(300, ACCOUNTS["long"]) is None


def test_a_cancelled_ask_is_not_remembered(streams: Streams, contract: Contract) -> None:
    series, ask = with_bars(streams, contract), Ask(None, None)
    ask.stamp, ask.read, series.asked = 300, FLAT, ask
    ask.answer.cancel()
    assert series.remembered(300, FLAT) is None
