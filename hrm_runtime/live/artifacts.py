"""The artifact that a live engine decides with, and how another takes its place."""

import logging
import time
from threading import Lock
from typing import Final

from hrm_runtime.artifact.contract import Contract
from hrm_runtime.artifact.model import Model
from hrm_runtime.errors import BadInput, HrmError
from hrm_runtime.journal.events import Loaded
from hrm_runtime.live.guards import Breaker
from hrm_runtime.live.recorder import Recorder
from hrm_runtime.live.streams import Streams, require_known
from hrm_runtime.log import log
from hrm_runtime.market.account import Account

_TRIAL_CAPITAL: Final = 1e6
"""Of the account on which an artifact is tried where a stream has had none."""


class Artifacts:
    """The artifact that decides, and the one before it.

    Any thread may read `model`, once for all that must belong to one artifact. Its lock guards
    both: one thread at a time exchanges them.

    Args:
        model: decides first.
        streams: each must be known to what decides.
        breaker: counts failures of what decides.
        recorder: of what is exchanged.
        rollback_after: failures in a row that bring back the one before; None: none do.

    Attributes:
        model: decides.
    """

    def __init__(
        self,
        model: Model,
        streams: Streams,
        breaker: Breaker,
        recorder: Recorder,
        rollback_after: int | None,
    ) -> None:
        self.model = model
        self._before: Model | None = None
        self._falls_back = True
        self._swapping = Lock()
        self._streams = streams
        self._breaker = breaker
        self._recorder = recorder
        self._rollback_after = rollback_after

    def use(self, model: Model) -> None:
        """Decide with another, once it has been tried on every stream; as `LiveEngine.use`."""
        with self._swapping:
            if model.id == self.model.id:
                log(logging.WARNING, "artifact decides already", model_id=model.id)
                return
            _require_rows(self.model.contract, model.contract)
            self._try(model)
            self._swap(model, self.model, "used")

    def rollback(self) -> Model:
        """Decide with the one before again, once; as `LiveEngine.rollback`."""
        with self._swapping:
            if self._before is None:
                raise BadInput("rollback: expected an artifact that decided before, found none")
            self._swap(self._before, None, "rolled back")
            return self.model

    def fall_back(self, failed: str) -> None:
        """Replace the artifact `failed` by the one before, after so many failures in a row.

        Where that cannot follow the streams that there are by now, `failed` stays; an error is
        logged, once, and nothing is raised: whoever failed has an ask to answer.
        """
        limit = self._rollback_after
        if limit is None or self._breaker.failures < limit:
            return
        if not self._swapping.acquire(blocking=False):  # an operator is at it
            return
        try:
            if self._falls_back and self._before is not None and self.model.id == failed:
                self._swap(self._before, None, f"rolled back after {limit} failures")
        except HrmError as error:
            self._falls_back = False
            why = (
                f"not rolled back after {limit} failures: {error}; drop the stream, then rollback()"
            )
            log(logging.ERROR, "artifact", model_id=failed, why=why)
        finally:
            self._swapping.release()

    def _try(self, model: Model) -> None:
        """Have an artifact decide once on each stream."""
        for line, series in self._streams.items():
            require_known(model.contract, line, series)
            rows = series.stream.rows
            if len(rows) < model.contract.features.window:
                continue
            account = series.account or Account.flat(_TRIAL_CAPITAL)
            decision = model.decide_rows(rows, account, instrument=line[0], timeframe=line[1])
            if decision.degraded:
                raise BadInput(
                    f"model: expected a decision on the newest bars of {line[0]} {line[1]}, found "
                    f"{decision.reason}"
                )

    def _swap(self, model: Model, before: Model | None, why: str) -> None:
        with self._streams.held_to(model.contract):  # one may have come meanwhile
            self.model, self._before, self._falls_back = model, before, True
            self._recorder.record(Loaded(time.time(), model.id, model.contract.name, why))
        self._breaker.succeeded()  # its failures were another's
        log(logging.WARNING, "artifact", model_id=model.id, why=why)


def _require_rows(old: Contract, new: Contract) -> None:
    """Hold an artifact to the rows that streams have."""
    for name in ("history_bars", "window"):
        expected, found = getattr(old.features, name), getattr(new.features, name)
        if expected != found:
            raise BadInput(f"model: expected {name} {expected} as now, found {found}")
