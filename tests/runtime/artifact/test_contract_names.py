"""What is asked of a contract: names of instruments and timeframes, and lengths of bars."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hrm_runtime import (
    Contract,
    UnknownInstrument,
    UnknownTimeframe,
)
from hrm_runtime.market.instruments import UNKNOWN


def test_bars_needed_are_the_history_of_the_window_s_oldest_row(contract: Contract) -> None:
    assert contract.bars_needed == 200 + 6 - 1


@pytest.mark.parametrize("allowed", [True, False])
def test_a_known_instrument_is_itself(contract: Contract, allowed: bool) -> None:
    contract = replace(contract, allow_unknown_instrument=allowed)
    assert contract.instrument("Beta") is contract.instruments["Beta"]


@pytest.mark.parametrize("name", ["Gamma", "", "beta", UNKNOWN])
def test_an_unknown_instrument_is_refused_with_the_known_ones(
    contract: Contract, name: str
) -> None:
    with pytest.raises(
        UnknownInstrument, match=f"instrument: expected one of Alpha, Beta; found '{name}', which"
    ):
        contract.instrument(name)


@pytest.mark.parametrize("name", ["Gamma", UNKNOWN])
def test_an_unknown_instrument_has_id_0_where_allowed(contract: Contract, name: str) -> None:
    contract = replace(contract, allow_unknown_instrument=True)
    assert contract.instrument(name) is contract.instruments[UNKNOWN]
    assert contract.instrument(name).id == 0


@pytest.mark.parametrize("allowed", [True, False])
def test_a_known_timeframe_has_its_id(contract: Contract, allowed: bool) -> None:
    contract = replace(contract, allow_unknown_timeframe=allowed)
    assert (contract.timeframe_id("15"), contract.timeframe_id("5")) == (1, 2)


@pytest.mark.parametrize("name", ["60", "1h", "tea", UNKNOWN])
def test_an_unknown_timeframe_is_refused_with_the_known_ones(contract: Contract, name: str) -> None:
    with pytest.raises(
        UnknownTimeframe, match=f"timeframe: expected one of 15, 5; found '{name}', which this"
    ):
        contract.timeframe_id(name)


def test_an_unknown_timeframe_has_id_0_where_allowed(contract: Contract) -> None:
    contract = replace(contract, allow_unknown_timeframe=True)
    assert [contract.timeframe_id(name) for name in ("60", "1h", UNKNOWN)] == [0, 0, 0]


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(("id_", "names"), [(1, "15 15m M15 900s"), (2, "5 05 5m 5min 5T")])
def test_a_timeframe_is_known_in_every_spelling(
    contract: Contract, names: str, id_: int, allowed: bool
) -> None:
    contract = replace(contract, allow_unknown_timeframe=allowed)
    assert {contract.timeframe_id(name) for name in names.split()} == {id_}
    assert {contract.timeframe_seconds(name) for name in names.split()} == {[900, 300][id_ - 1]}
    assert {contract.timeframe(name) for name in names.split()} == {["15", "5"][id_ - 1]}


@pytest.mark.parametrize("name", [5, None, np.array(["5", "15"]), ["unknown"]], ids=repr)
def test_a_timeframe_that_is_no_name_has_no_id(contract: Contract, name: Any) -> None:
    contract = replace(contract, allow_unknown_timeframe=True)
    with pytest.raises(UnknownTimeframe, match="timeframe: expected a name, found "):
        contract.timeframe_id(name)


def test_a_month_of_an_artifact_goes_on_under_its_own_name(contract: Contract) -> None:
    month = {"1M": replace(contract.timeframes["5"], seconds=30 * 86_400)}
    contract = replace(contract, timeframes=month, allow_unknown_timeframe=True)
    assert (contract.timeframe_id("1M"), contract.timeframe_seconds("1M")) == (2, 2_592_000)
    with pytest.raises(UnknownTimeframe, match="the length of its bars must be known"):
        contract.timeframe_id("M")


def test_an_odd_name_of_an_artifact_comes_before_what_it_says(contract: Contract) -> None:
    odd = {"5m": replace(contract.timeframes["5"], seconds=3600)}
    contract = replace(contract, timeframes=contract.timeframes | odd)
    assert contract.timeframe_seconds("5m") == 3600
    assert contract.timeframe_seconds("5min") == 300
    assert contract.timeframe("1h") == "5m"


# lengths of bars


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize(("name", "seconds"), [("5", 300), ("15", 900)])
def test_a_known_timeframe_has_the_seconds_of_the_contract(
    contract: Contract, name: str, seconds: int, allowed: bool
) -> None:
    contract = replace(contract, allow_unknown_timeframe=allowed)
    assert contract.timeframe_seconds(name) == seconds


def test_the_contract_s_seconds_come_before_what_a_name_says(contract: Contract) -> None:
    timeframes = {
        "5": replace(contract.timeframes["5"], seconds=301),
        "weekly": replace(contract.timeframes["15"], seconds=604_800),
    }
    contract = replace(contract, timeframes=timeframes, allow_unknown_timeframe=True)
    assert [contract.timeframe_seconds(name) for name in ("5", "weekly", "15", "D")] == [
        *(301, 604_800, 900, 86_400),
    ]


@pytest.mark.parametrize("name", ["60", "D", "W"])
def test_an_unknown_timeframe_has_no_seconds_where_it_is_not_allowed(
    contract: Contract, name: str
) -> None:
    with pytest.raises(UnknownTimeframe, match=f"expected one of 15, 5; found '{name}', which"):
        contract.timeframe_seconds(name)


@pytest.mark.parametrize("name", ["weekly", "0", "1M", "43200", "", UNKNOWN])
def test_a_timeframe_of_which_nobody_says_the_length_is_refused(
    contract: Contract, name: str
) -> None:
    contract = replace(contract, allow_unknown_timeframe=True)
    with pytest.raises(
        UnknownTimeframe,
        match="^timeframe: expected a name this artifact knows, or one such as 5, 5m, 5min, 1h, D, "
        f"1d or W: the length of its bars must be known; found '{name}'$",
    ):
        contract.timeframe_seconds(name)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_timeframe_that_is_no_name_has_no_seconds(contract: Contract, allowed: bool) -> None:
    contract = replace(contract, allow_unknown_timeframe=allowed)
    with pytest.raises(UnknownTimeframe, match="timeframe: expected a name, found 5"):
        contract.timeframe_seconds(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["weekly", "1M", ""])
def test_a_timeframe_of_which_nobody_says_the_length_has_no_id_either(
    contract: Contract, name: str
) -> None:
    contract = replace(contract, allow_unknown_timeframe=True)
    with pytest.raises(UnknownTimeframe, match="the length of its bars must be known"):
        contract.timeframe_id(name)


def test_what_was_probably_meant_is_named(contract: Contract) -> None:
    with pytest.raises(
        UnknownInstrument, match=r"; the closest is Alpha, which differs in upper and lower case$"
    ):
        contract.instrument("ALPHA")
