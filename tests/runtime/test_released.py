"""The model in models/base: what its card says of it, and that it decides."""

from pathlib import Path

import numpy as np
import pytest
from synthetic import random_bars

from hrm_runtime import Account, Action, Decision, Model, Reason, load

RELEASED = Path(__file__).parents[2] / "models" / "base"
MOST_BYTES = 30_000_000  # every clone carries them


@pytest.fixture(scope="module")
def released() -> Model:
    """Loaded, hence verified, and its golden vectors replayed on this CPU."""
    return load(RELEASED / "artifact")


def at(model: Model, instrument: str, timeframe: str, account: Account) -> Decision:
    seconds = model.contract.timeframe_seconds(timeframe)
    bars = random_bars(model.contract.bars_needed, seed=1, seconds=seconds)
    return model.decide(bars, account, instrument=instrument, timeframe=timeframe)


def test_card_is_of_this_artifact(released: Model) -> None:
    card, contract = (RELEASED / "MODEL_CARD.md").read_text(), released.contract
    assert released.id in card
    assert f"the last {contract.bars_needed} bars" in card
    assert all(name in card for name in contract.instruments)


def test_folder_is_within_its_limit() -> None:
    assert sum(file.stat().st_size for file in (RELEASED / "artifact").iterdir()) <= MOST_BYTES


def test_network_is_the_base_preset_in_integers(released: Model) -> None:
    graph = released.contract.graph
    assert (graph.cycles, graph.timesteps, graph.precision) == (3, 5, "int8")
    assert (graph.tokens, graph.h_dim, graph.l_dim) == (11, 512, 256)


def test_every_stage_of_its_parity_passed(released: Model) -> None:
    stages = {(stage.stage, stage.reference): stage for stage in released.contract.parity}
    assert all(stage.passed for stage in stages.values())
    assert stages["artifact", "torch eager, quantised"].windows >= 512


@pytest.mark.parametrize(
    ("instrument", "timeframe"), [("Nifty", "5"), ("Bank_Nifty", "60"), ("never seen", "D")]
)
def test_it_decides_for_names_it_knows_and_others(
    released: Model, instrument: str, timeframe: str
) -> None:
    decision = at(released, instrument, timeframe, Account.flat(1e6))
    assert (decision.reason, decision.segments) == (Reason.OK, 1)
    legal = [Action.BUY_LONG, Action.SELL_SHORT, Action.HOLD]
    assert np.flatnonzero(decision.probabilities).tolist() == legal
    assert decision.action == max(legal, key=lambda action: decision.probabilities[action])


def test_answer_depends_on_the_instrument(released: Model) -> None:
    account = Account.flat(1e6)
    nifty, bankex = (at(released, name, "5", account) for name in ("Nifty", "Bankex"))
    assert nifty.probabilities != bankex.probabilities


def test_what_is_legal_depends_on_the_account(released: Model) -> None:
    short = Account(
        capital=1e6,
        position_quantity=-2.0,
        entry_price=100.0,
        unrealized_pnl=0.0,
        is_position_open=True,
        distance_to_trail=0.0,
    )
    decision = at(released, "Nifty", "5", short)
    legal = [Action.CLOSE_SHORT, Action.HOLD]
    assert np.flatnonzero(decision.probabilities).tolist() == legal
