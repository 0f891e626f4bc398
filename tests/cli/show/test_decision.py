"""Decisions are shown whole, and their words explained."""

import io
import re

import pytest
from rich.console import Console
from synthetic import random_bars
from terminal import Table

from hrm_cli.show import console
from hrm_cli.show.decision import decisions
from hrm_runtime import Action, Decision, Reason
from hrm_runtime.artifact.decision import hold
from hrm_runtime.market.stamps import moment


def decided(action: Action, quantity: float, reason: Reason = Reason.OK) -> Decision:
    return Decision(
        action=action,
        quantity=quantity,
        value=-123.456,
        probabilities=(0.0, 0.75, 0.0, 0.0, 0.25),
        q_values=(0.5, 0.25),
        segments=1,
        reason=reason,
        model_id="abc",
        latency_ms=123.4,
    )


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    ("decision", "order"),
    [
        (decided(Action.SELL_SHORT, 12_345.0), "SELL_SHORT 12,345 lots"),
        (decided(Action.CLOSE_SHORT, 1.0), "CLOSE_SHORT 1 lot"),
        (decided(Action.HOLD, 1.0), "HOLD"),
    ],
    ids=["many", "one", "none"],
)
def test_a_decision_is_shown_whole(
    decision: Decision, order: str, width: int, whole: Table
) -> None:
    bars = random_bars(3)
    shown = decisions, [("Bank_Nifty_Futures", "15", bars, decision)]
    names, *lines = whole(width, *shown)
    assert names == ["at the close of", "decision", "probabilities"]
    where, what, shares = (" ".join(filter(None, column)) for column in zip(*lines, strict=True))
    close = f"{bars.close[-1]:,.2f}"
    assert where == f"Bank_Nifty_Futures 15 {moment(int(bars.datetime[-1]))} close {close}"
    assert what == f"{order} value -123.46 ATR ok, 123.4 ms"
    sell, wait = re.fullmatch(r"SELL_SHORT +75% ?(█*) HOLD +25% ?(█*)", shares).groups()  # type: ignore[union-attr]
    assert abs(len(sell) - 3 * len(wait)) <= 1
    assert len(sell) == 9 or width == 60


def test_the_words_of_a_decision_are_explained_in_two_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=written, width=80))
    decisions([("Alpha", "5", random_bars(3), hold(Reason.STALE, "abc"))])
    *_, first, second = written.getvalue().splitlines()
    assert first == "A lot is the unit an instrument trades in. Value is the best return that the "
    assert second == "network expects, in ATR: the average range of a bar, here of the last 14."
