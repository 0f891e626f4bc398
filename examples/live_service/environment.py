"""Around the environment of a live service that reads another vocabulary than its environment does.

Such a service opens on 3, BUY, and on 1, SELL, and hands the number on to an environment to which 3
is CLOSE_SHORT: neither vocabulary alone works there. With `LIVE_SERVICE` its orders go out as
decided, and this stands between it and its environment:

    agent = HRMAgent(engine, "Nifty", "5", vocabulary=LIVE_SERVICE, max_lots=49, ...)
    environment = ServiceEnvironment(environment, position=lambda: ..., report=...)

then both are given to the service in place of its own. Copy this file: it needs only `hrm_runtime`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hrm_runtime.actions import LIVE_SERVICE, Action, action_of


class ServiceEnvironment:
    """An environment whose `step` takes the service's numbers; all else is the environment's own.

    What is read and set is the environment's, but for names that begin with an underscore.

    Args:
        environment: of the service; its `step` takes the numbers of `Action`.
        position: the signed lots that it holds at this moment.
        report: told after a step what was decided, and by how many signed lots the position
            changed, where it did or should have: lots are cut to what the capital affords, and a
            stop ends a position at HOLD. The service sends no order at a close: send it here.
    """

    def __init__(
        self,
        environment: Any,
        position: Callable[[], float],
        report: Callable[[Action, float], object],
    ) -> None:
        self._environment = environment
        self._position = position
        self._report = report

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy has no environment yet, and would look for it for ever
            raise AttributeError(f"{type(self).__name__} has no {name}")
        return getattr(self._environment, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._environment, name, value)

    def step(self, decided: Sequence[float]) -> Any:
        """One bar on.

        Args:
            decided: the service's number of an action, and lots, which it rounds.

        Raises:
            ValueError: the service has no such number; the environment was not stepped.
        """
        number, lots = decided
        action, before = action_of(int(number), LIVE_SERVICE), self._position()
        stepped = self._environment.step([int(action), float(round(lots))])
        filled = self._position() - before
        if filled or action is not Action.HOLD:
            self._report(action, filled)
        return stepped
