"""The service of the host trades as decided where the adapter stands around its environment."""

import copy
import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from host import HOST_COLUMNS, LATER
from live import NEEDED, ON, Live, Puppet, changed
from synthetic import random_bars
from trading_host import Environment, LiveService, Traded, frame_of

from hrm_runtime import Action, Decision, HRMAgent, Model
from hrm_runtime.artifact.segments import Outputs
from hrm_runtime.market.actions import CANONICAL, LIVE_SERVICE, OPENINGS, Vocabulary

SCRIPT = Path(__file__).parents[2] / "examples" / "live_service" / "environment.py"
BARS = random_bars(NEEDED + 400, seed=24)
FIRST = NEEDED - 1
MOST = 20


@pytest.fixture(scope="module")
def around() -> Any:
    """The class of the example, imported from its file."""
    spec = importlib.util.spec_from_file_location("service_environment", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ServiceEnvironment


def wavering(model: Model) -> Model:
    """The frozen artifact with a network that wants each action at times, and up to 30 lots."""
    rng = np.random.default_rng(5)

    def change(outputs: Outputs) -> None:
        outputs["action_type"][:] = rng.permutation([9.0, 6.0, 3.0, 0.0, -3.0])
        outputs["action_type"][:, Action.HOLD] += 20.0 * (rng.random() < 0.7)
        outputs["quantity"][:] = rng.uniform(1.0, 30.0)

    return Puppet(model, after=changed(change))


class Told:
    """An agent that keeps what it answers, once per bar."""

    def __init__(self, agent: HRMAgent, environment: Environment) -> None:
        self.agent = agent
        self.environment = environment
        self.decisions: dict[int, Decision] = {}

    def act(self, observation: Any) -> tuple[int, float]:
        self.decisions[self.environment.at] = self.agent.decide(observation)
        return self.agent.act(observation)


Run = Callable[..., tuple[Told, LiveService, Environment]]


@pytest.fixture
def run(live: Live, model: Model) -> Run:
    """Lets the service trade until the bars end, with its environment or what stands around it."""

    def ran(
        vocabulary: Vocabulary,
        around: Callable[[Environment], Any] = lambda environment: environment,
    ) -> tuple[Told, LiveService, Environment]:
        engine = live(wavering(model), clock=LATER, stale_after={"5": 1e9})
        shown = BARS[FIRST - 49 :]
        environment = Environment(frame_of(shown, HOST_COLUMNS), Traded("stock", 1), 1e6)
        agent = HRMAgent(
            engine,
            **ON,
            vocabulary=vocabulary,
            max_lots=MOST,
            bars=lambda: BARS[: FIRST - 48 + environment.at],
            account=environment.account,
        )
        told = Told(agent, environment)
        service = LiveService(told, around(environment))
        while service.tick():
            pass
        assert len(told.decisions) == 400
        assert {one.reason.value for one in told.decisions.values()} == {"ok"}
        return told, service, environment

    return ran


def openings(told: Told) -> list[tuple[str, int]]:
    """The orders that the decisions are."""
    return [
        ("BUY" if one.action is Action.BUY_LONG else "SELL", min(int(one.quantity), MOST))
        for one in told.decisions.values()
        if one.action in OPENINGS
    ]


def signed(one: Decision) -> float:
    """By how many lots a decision changes the position."""
    up = one.action in (Action.BUY_LONG, Action.CLOSE_SHORT)
    lots = min(one.quantity, MOST) if one.action in OPENINGS else one.quantity
    return lots if up else -lots


def test_with_the_adapter_both_do_what_was_decided(run: Run, around: Any) -> None:
    reports: dict[int, tuple[Action, float]] = {}
    held: dict[int, int] = {}

    def wrapped(environment: Environment) -> Any:
        def report(action: Action, filled: float) -> None:
            at = environment.at - 1  # the bar decided at
            reports[at], held[at] = (action, filled), environment.lots

        return around(environment, position=lambda: environment.lots, report=report)

    told, service, _ = run(LIVE_SERVICE, wrapped)
    assert service.orders == openings(told)
    decided = {at: one for at, one in told.decisions.items() if one.action is not Action.HOLD}
    assert [at for at, one in decided.items() if reports[at] != (one.action, signed(one))] == []
    for action in set(Action) - {Action.HOLD}:
        assert sum(one.action is action for one in decided.values()) >= 5
    stopped = reports.keys() - decided.keys()
    assert len(stopped) > 10
    assert {(reports[at][0], held[at]) for at in stopped} == {(Action.HOLD, 0)}


def test_without_it_the_environment_closes_where_the_service_buys(run: Run) -> None:
    told, service, environment = run(LIVE_SERVICE)
    bought = [order for order in openings(told) if order[0] == "BUY"]
    assert [order for order in service.orders if order[0] == "BUY"] == bought
    assert len(bought) > 10
    assert environment.happened["long"] == 0
    assert environment.happened["short"] > 10


def test_in_the_environment_s_vocabulary_the_service_buys_where_a_short_is_closed(run: Run) -> None:
    told, service, environment = run(CANONICAL)
    read = {Action.SELL_SHORT: "SELL", Action.CLOSE_SHORT: "BUY"}
    decided = [one.action for one in told.decisions.values()]
    assert [order for order, _ in service.orders] == [read[one] for one in decided if one in read]
    assert decided.count(Action.BUY_LONG) == environment.happened["long"] > 10


def environment_of_ten() -> Environment:
    return Environment(frame_of(BARS[:10], HOST_COLUMNS), Traded("stock", 1), 1e6, lookback=3)


@pytest.mark.parametrize("number", [5, -1, 7])
def test_a_number_that_the_service_does_not_have_steps_nothing(around: Any, number: int) -> None:
    environment, reports = environment_of_ten(), []
    adapter = around(environment, lambda: environment.lots, lambda *told: reports.append(told))
    with pytest.raises(ValueError, match=rf"expected one of \[0, 1, 2, 3, 4\], found {number}"):
        adapter.step([number, 1.0])
    assert (environment.at, reports) == (2, [])


@pytest.mark.parametrize("kind", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_lots_arrive_as_the_service_rounds_them_and_all_else_is_the_environment_s(
    around: Any, kind: Callable[[list[float]], Any]
) -> None:
    environment, reports = environment_of_ten(), []
    adapter = around(environment, lambda: environment.lots, lambda *told: reports.append(told))
    assert np.array_equal(adapter.reset(), environment.reset())
    stepped = adapter.step(kind([3, 2.7]))
    assert (environment.lots, adapter.lots, adapter.at) == (3, 3, 3)
    assert stepped[3] == {"capital": 1e6 - 25}
    adapter.step(kind([2, 1.0]))
    assert reports == [(Action.BUY_LONG, 3)]


class Funded:
    """An environment that answers a step with its capital."""

    capital = 1.0
    _secret = 7

    def step(self, decided: list[float]) -> float:
        return self.capital


def test_what_is_set_is_the_environment_s(around: Any) -> None:
    environment = Funded()
    adapter = around(environment, position=float, report=print)
    adapter.capital = 5.0
    assert (environment.capital, adapter.capital, adapter.step([2, 1.0])) == (5.0, 5.0, 5.0)
    adapter._own = 3
    assert adapter._own == 3
    assert not hasattr(environment, "_own")
    with pytest.raises(AttributeError, match=r"^ServiceEnvironment has no _secret$"):
        _ = adapter._secret


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],  # noqa: S301, our own
    ids=["copy", "deepcopy", "pickle"],
)
def test_an_adapter_can_be_copied(
    around: Any, copied: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, around.__module__, SimpleNamespace(ServiceEnvironment=around))
    adapter = around(Funded(), position=float, report=print)
    adapter.capital = 5.0
    other = copied(adapter)
    assert type(other) is around
    assert other.step([2, 1.0]) == 5.0
