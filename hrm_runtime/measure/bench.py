"""How fast an artifact decides on this machine, alone or beside others, and what that takes.

Every variant lives in a process of its own, all on one core with one thread. They take turns in an
order drawn anew for every round, so that whatever else the machine does meets all of them alike.
"""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from hrm_runtime.artifact.contract import GOLDEN, MODEL, Contract
from hrm_runtime.artifact.folder import load
from hrm_runtime.artifact.golden import Golden
from hrm_runtime.machine import Machine, machine, one_core
from hrm_runtime.measure.turns import DECISION, PASS, Worker, WorkerFailed, write_inputs

ROUNDS: Final = 60
TURN: Final = 0.1
"""Seconds of one turn: after a pass that is not timed, which brings its weights back to the caches,
as many as fit."""
LEAST: Final = 3
"""Passes in a turn, however long they take."""

BATCHES: Final = (1, 4, 16, 64)
BATCH_ROUNDS: Final = 4
"""Of batches larger than 1; the first is not counted."""

INPUTS_FILE: Final = "inputs.npz"
LIBRARIES: Final = ("hrm", "numpy", "onnxruntime", "TA-Lib")

Times = dict[tuple[str, str], list[float]]
"""Milliseconds of each call, by variant and what was called."""

OnProgress = Callable[[str, int, int], None]
"""(what is done, steps of it that are done, all of them)."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where variants are measured.

    Attributes:
        artifact: the folder that is measured.
        contract: its own.
        folder: for files; removed in the end.
        inputs: file of the windows that all run on: the artifact's golden ones.
        core: what all are pinned to.
    """

    artifact: Path
    contract: Contract
    folder: Path
    inputs: Path
    core: int | None

    @property
    def worker_arguments(self) -> tuple[str, str]:
        """What every worker is told first."""
        return str(self.inputs), "" if self.core is None else str(self.core)

    def own_worker(self, graph: Path | None = None) -> tuple[str, ...]:
        """The command that serves the artifact, or another graph of its network."""
        command = ("-m", "hrm_runtime.measure.runner", *self.worker_arguments, str(self.artifact))
        return command if graph is None else (*command, str(graph))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One thing that is measured.

    Attributes:
        name: its own among all.
        command: of its worker, for `Worker`.
        files: what the graph lies in; none where there is no graph.
        served: whether it is the whole network, whose memory and loading mean something.
        batches: that it is measured with.
        decides: whether it makes decisions out of passes.
    """

    name: str
    weights: Literal["artifact", "random"]
    command: tuple[str, ...]
    files: tuple[Path, ...] = ()
    served: bool = True
    batches: tuple[int, ...] = BATCHES
    decides: bool = False


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds of one call at batch 1."""

    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, kw_only=True)
class Result(Latency):
    """What was measured of a variant; None where it does not apply or is not known.

    Attributes:
        rows_per_s: by batch, from the median pass.
        rss_mb: memory of its process after loading and warming up.
        load_s: from the file to the first answer.
        size_mb: of the graph's file.
        note: what the name does not say.
    """

    name: str
    rows_per_s: dict[int, float]
    rss_mb: float | None
    load_s: float | None
    size_mb: float | None
    weights: Literal["artifact", "random"]
    note: str | None = None


@dataclass(frozen=True)
class Skipped:
    """What was not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything that was measured; `decide_rows` is of the artifact, all segments included."""

    results: tuple[Result, ...]
    skipped: tuple[Skipped, ...]
    decide_rows: Latency | None
    host: Machine


Others = Callable[[Site, OnProgress], tuple[Sequence[Variant], Sequence[Skipped]]]
"""Makes what is measured beside an artifact, or says why not."""


def bench(
    artifact: str | Path,
    on_progress: OnProgress = lambda *_: None,
    others: Others = lambda *_: ((), ()),
    libraries: Iterable[str] = LIBRARIES,
) -> Bench:
    """Measure the artifact at `artifact`, and others beside it.

    Args:
        libraries: whose versions to tell.

    Raises:
        DoNotStart: as `load`.
    """
    path = Path(artifact)
    contract = load(path).contract
    golden = Golden.from_bytes((path / GOLDEN).read_bytes())
    with tempfile.TemporaryDirectory(prefix="hrm-bench-") as folder:
        site = Site(
            artifact=path.absolute(),
            contract=contract,
            folder=Path(folder),
            inputs=Path(folder, INPUTS_FILE),
            core=one_core(),
        )
        write_inputs(
            site.inputs, (golden.features, golden.account, golden.instrument, golden.timeframe)
        )
        own = Variant(
            name=f"hrm {contract.graph.precision}",
            weights="artifact",
            command=site.own_worker(),
            files=(path / MODEL,),
            decides=True,
        )
        made, skipped = others(site, on_progress)
        found = measure([own, *made], on_progress, libraries)
    return replace(found, skipped=(*skipped, *found.skipped))


def measure(
    variants: Sequence[Variant], on_progress: OnProgress, libraries: Iterable[str] = LIBRARIES
) -> Bench:
    """Open every variant and let them take turns. One that fails is skipped and named."""
    with ExitStack() as stack:
        race = _Race(on_progress)
        for number, variant in enumerate(variants):
            on_progress(f"opening {variant.name}", number, len(variants))
            race.enter(variant, stack.enter_context(Worker(*variant.command)))
        times = {batch: race.rounds(batch) for batch in BATCHES}
    decisions = [*chain(*(ms for (_, what), ms in times[1].items() if what == DECISION))]
    return Bench(
        results=tuple(_result(variant, race.opened[variant], times) for variant in race.standing),
        skipped=tuple(race.skipped),
        decide_rows=latency(decisions) if decisions else None,
        host=machine(libraries),
    )


def latency(milliseconds: Sequence[float]) -> Latency:
    """Percentiles of the times of single calls."""
    p50, p99, longest = np.percentile(milliseconds, (50, 99, 100)).tolist()
    return Latency(p50_ms=p50, p99_ms=p99, max_ms=longest)


class _Race:
    """Workers that take turns.

    Attributes:
        opened: what each variant said when it was ready.
        skipped: those that failed.
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self.opened: dict[Variant, dict[str, Any]] = {}
        self.skipped: list[Skipped] = []
        self._workers: dict[Variant, Worker] = {}
        self._on_progress = on_progress
        self._rng = np.random.default_rng(0)

    @property
    def standing(self) -> list[Variant]:
        """The variants that have not failed."""
        return [*self._workers]

    def enter(self, variant: Variant, worker: Worker) -> None:
        """Wait until a worker is ready."""
        self._workers[variant] = worker
        self.opened[variant] = self._answer(variant, worker.listen)

    def rounds(self, batch: int) -> Times:
        """All that can take turns at `batch`."""
        count, dropped = (ROUNDS, 0) if batch == 1 else (BATCH_ROUNDS, 1)
        order = {"batch": batch, "seconds": TURN}
        order |= {"least": LEAST, "untimed": 1} if batch == 1 else {"least": 1, "untimed": 0}
        seats = [(variant, PASS) for variant in self.standing if batch in variant.batches]
        if batch == 1:
            seats += [(variant, DECISION) for variant in self.standing if variant.decides]
        found: Times = {(variant.name, what): [] for variant, what in seats}
        for number in range(count):
            self._on_progress(f"measuring at batch {batch}", number, count)
            for place in self._rng.permutation(len(seats)).tolist():
                variant, what = seats[place]
                if variant in self._workers:
                    tell = partial(self._workers[variant].tell, what=what, **order)
                    told = self._answer(variant, tell).get("ms", [])
                    found[variant.name, what] += told if number >= dropped else []
        return found

    def _answer(self, variant: Variant, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a worker answers; nothing, and it is out, where it has failed."""
        try:
            return ask()
        except WorkerFailed as error:
            self._workers.pop(variant).end()
            self.skipped.append(Skipped(variant.name, str(error)))
            return {}


def _result(variant: Variant, opened: dict[str, Any], times: dict[int, Times]) -> Result:
    passes = {batch: times[batch][variant.name, PASS] for batch in variant.batches}
    size = sum(file.stat().st_size for file in variant.files) / 1e6
    return Result(
        name=variant.name,
        **vars(latency(passes[1])),
        rows_per_s={batch: 1e3 * batch / float(np.median(ms)) for batch, ms in passes.items()},
        rss_mb=opened["rss_mb"] if variant.served else None,
        load_s=opened["load_s"] if variant.served else None,
        size_mb=size if variant.files else None,
        weights=variant.weights,
    )
