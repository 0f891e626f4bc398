"""A stream whose bars are corrected and begin anew, held to a plain account of what was told."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import random_bars, scaled

from hrm_runtime import BadBars, Bar, Bars, Contract, Reason, Untrusted
from hrm_runtime.journal.events import Change
from hrm_runtime.live.stream import Stream, contradiction
from hrm_runtime.market.bars import REQUIRED
from hrm_runtime.market.hours import TradingHours

BARS = random_bars(230, seed=17)
NEEDED = 205
TOLD = {
    factor: scaled(BARS, factor)
    for factor in (1.0, 1.01, 0.5)
}  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from([Change.ADDED, Change.CORRECTED, Change.CORRECTED, Change.RESET]),
        st.integers(0, len(BARS) - 1),
        st.one_of(st.integers(1, 12), st.just(len(BARS))),
        st.sampled_from(list(TOLD)),
    ),
    min_size=1,
    max_size=6,
)


def stream_of(contract: Contract, *fed: Bars) -> Stream:
    stream = Stream(300, TradingHours(), contract, 0.0)
    for bars in fed:
        stream.feed(bars, math.inf)
    return stream


def bars_of(told: dict[int, Bar]) -> Bars:
    columns = zip(*(told[stamp][:5] for stamp in sorted(told)), strict=True)
    return Bars(*columns)


def listed(bars: Bars) -> dict[int, Bar]:
    """Each bar by its stamp."""
    columns = (getattr(bars, name).tolist() for name in REQUIRED)
    return {values[0]: Bar(*values) for values in zip(*columns, strict=True)}


def spelt(stream: Stream) -> tuple[list[bytes], list[bytes]]:
    """Bars and rows to the last bit."""
    assert stream.bars is not None
    bars = [getattr(stream.bars, name).tobytes() for name in REQUIRED]
    return bars, [row.values.tobytes() for row in stream.rows]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(steps=STEPS)
def test_whatever_was_corrected_it_is_as_if_begun_on_what_was_told_last(
    contract: Contract, steps: list[tuple[Change, int, int, float]]
) -> None:
    stream = stream_of(contract, BARS)
    known = listed(BARS[-NEEDED:])
    for change, first, count, factor in steps:
        bars = TOLD[factor][first : first + count]
        new = listed(bars)
        if change is Change.ADDED and any(known.get(at, bar) != bar for at, bar in new.items()):
            with pytest.raises(BadBars, match="expected what was given for"):
                stream.change(change, bars, math.inf)
        else:
            stream.change(change, bars, math.inf)
            known = new if change is Change.RESET else {**known, **new}
            known = {at: known[at] for at in sorted(known)[-NEEDED:]}
        assert spelt(stream) == spelt(stream_of(contract, bars_of(known)))


def test_a_correction_needs_no_bars_before_it(contract: Contract) -> None:
    stream = stream_of(contract)
    stream.correct(BARS[:0], math.inf)
    assert stream.bars is None
    stream.correct(BARS, math.inf)
    assert spelt(stream) == spelt(stream_of(contract, BARS))


@pytest.mark.parametrize("change", [Change.CORRECTED, Change.RESET])
def test_a_bar_that_is_not_closed_is_no_truth_yet(contract: Contract, change: Change) -> None:
    stream = stream_of(contract, BARS[:-1])
    before = spelt(stream)
    with pytest.raises(Untrusted, match="pass closed bars") as caught:
        stream.change(change, BARS[-5:], float(BARS.datetime[-1]) + 299.0)
    assert caught.value.reason is Reason.FUTURE
    assert spelt(stream) == before


def test_a_contradiction_names_the_first_bar_that_is_another(contract: Contract) -> None:
    assert contradiction(BARS[:50], BARS[40:]) is None
    assert contradiction(BARS[:50], scaled(BARS[50:], 0.5)) is None
    assert contradiction(BARS, scaled(BARS, 1 + 1e-12)) is None
    found = contradiction(BARS[:50], scaled(BARS[40:], 0.5))
    opening = float(BARS.open[40])
    assert found is not None
    assert found.startswith("expected what was given for 2023-11-21 13:30 UTC before, ")
    assert f"({opening}, " in found
    assert f"found ({0.5 * opening}, " in found
