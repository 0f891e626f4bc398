from typing import Any

import pytest

from hrm_runtime import Contract
from hrm_runtime.market.instruments import UNKNOWN, Instrument, name_of


@pytest.mark.parametrize(
    ("number", "name"), [(0, UNKNOWN), (1, "Alpha"), (2, "Beta"), (9, UNKNOWN)]
)
def test_an_id_has_one_instrument(contract: Contract, number: int, name: str) -> None:
    assert name_of(contract.instruments, number) == name


@pytest.mark.parametrize(("number", "name"), [(0, UNKNOWN), (1, "15"), (2, "5")])
def test_an_id_has_one_timeframe(contract: Contract, number: int, name: str) -> None:
    assert name_of(contract.timeframes, number) == name


@pytest.mark.parametrize(
    ("kind", "cost"), [("stock", 23_500.0 * 75), ("index", 23_500.0 * 0.015 * 75)]
)
def test_a_lot_of_an_index_costs_its_premium(kind: Any, cost: float) -> None:
    facts = Instrument(
        id=1, type=kind, lot_size=75, tick_size=0.05, premium_min=0.01, premium_max=0.02
    )
    assert facts.cost_per_lot(23_500.0) == pytest.approx(cost, rel=1e-15)
