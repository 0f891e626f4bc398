"""What an artifact promises: the schema of `contract.json`, its one reader and its one writer."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from hrm_runtime.artifact.schema import (
    LinesConverted,
    SchemaMismatch,
    SealBroken,
    canonical,
    converted,
    parse,
    unseal,
)
from hrm_runtime.errors import (
    ArtifactDamaged,
    ContractInvalid,
    UnknownInstrument,
    UnknownTimeframe,
    UnsupportedFormat,
)
from hrm_runtime.market.actions import Action
from hrm_runtime.market.columns import ACCOUNT, FEATURE_VERSION, FEATURES, LEAST_HISTORY
from hrm_runtime.market.instruments import UNKNOWN, Instrument, Timeframe, Trading
from hrm_runtime.market.names import SPELLINGS, not_known, seconds_of, timeframe_of

FORMAT_VERSION: Final = 1

CONTRACT: Final = "contract.json"
MODEL: Final = "model.onnx"
GOLDEN: Final = "golden.npz"

INPUTS: Final = ("features", "account", "instrument", "timeframe")
"""The graph's inputs, in order; the states `z_H` and `z_L` come after them and are optional."""

OUTPUTS: Final = (
    "action_type",
    "quantity",
    "value",
    "q_values",
    "z_H_out",
    "z_L_out",
    "l_residual",
    "h_residual",
)
"""The graph's outputs, in order."""

LEAST_WINDOWS: Final = 32
"""Golden vectors an artifact must have."""

Precision = Literal["fp32", "fp16", "int8"]
"""Of the weights: float32; stored as float16, computed in float32; 8-bit integers."""

LARGEST_ALLOWANCE: Final = 0.005
"""Of windows in which rounding may lead the integers of int8 elsewhere."""

LARGEST_TOLERANCES: Final[Mapping[Precision, float]] = {"fp32": 0.05, "fp16": 0.05, "int8": 0.5}
"""A looser comparison would prove nothing."""

NEAR: Final[Mapping[Precision, float]] = {"fp32": 1e-4, "fp16": 1e-4, "int8": 0.01}
"""Two probabilities, or two halting values, closer than this are a tie that rounding may turn.

Another processor, library or number of threads adds up in another order. Measured: 1e-7 to 1e-5 of
a probability in float32; at most 8e-4 where a rounded input of an integer product moves by a level.
"""

LATEST_MOMENT: Final = 10**11
"""A moment beyond (the year 5138) is milliseconds or worse, not epoch seconds."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """The columns of a window, their definition version, and the bars behind it."""

    version: int
    names: tuple[str, ...]
    history_bars: int
    window: int


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Bounds of the quantity head, in lots."""

    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The unrolled network: N `cycles` of T `timesteps`, states [tokens, width], encoding.

    `input_scales` are those of the integer products, by the module that owns the weight; empty
    unless `precision` is int8.
    """

    cycles: int
    timesteps: int
    reset_l: bool
    tokens: int
    h_dim: int
    l_dim: int
    precision: Precision
    opset: int
    input_scales: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the artifact came from: its checkpoint, the settings, and the versions that made it.

    Attributes:
        trained_until: epoch seconds; every label that the weights were trained on was known
            before it.
    """

    checkpoint_sha256: str
    trained_until: int
    settings: Any
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """Largest differences of one output; `max_rel` is |a - b| / max(1, |reference|).

    Attributes:
        tolerance: of the largest `max_rel` in a window; None where it is listed only.
        beyond: windows with a larger one.
    """

    max_abs: float
    max_rel: float
    tolerance: float | None
    beyond: int


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A decision that differs. `gap`: the reference's two largest probabilities, subtracted."""

    window: int
    what: Literal["action", "quantity", "segments"]
    gap: float


@dataclass(frozen=True, kw_only=True)
class GapBand:
    """Agreement where the reference's two largest probabilities differ by `above` or more.

    Up to the `above` of the next band. Of `windows` so many have the same action, and so many the
    same decision: action, segments and lots.
    """

    above: float
    windows: int
    same_action: int
    same_decision: int


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How an error grows: the root mean square difference of states of RMS 1 after each step.

    Attributes:
        z_L: after each low step, T values for each of N cycles.
        z_H: after each of N cycles.
    """

    z_L: tuple[tuple[float, ...], ...]
    z_H: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One comparison of the parity ladder: `stage` held against `reference` over `windows`.

    Attributes:
        gated: whether it had to pass; others say what a precision does.
        allowance: share of windows that may decide otherwise, or be beyond a tolerance.
        action_agreement: share of windows with the same decision: action, segments and lots.
        by_gap: agreement by how sure the reference was.
        flips: the windows whose decision differs.
        growth: where states were compared after each step.
    """

    stage: str
    reference: str
    gated: bool
    allowance: float
    windows: int
    max_abs: float
    max_rel: float
    outputs: dict[str, OutputParity]
    action_agreement: float
    by_gap: tuple[GapBand, ...]
    flips: tuple[Flip, ...]
    growth: Growth | None
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Contract:
    """Everything a decision depends on besides the graph; see docs/artifact.md.

    `digest` is the sha256 of the canonical text with `digest` empty; it seals the text, and is not
    the artifact's `id`. `files` maps the names of
    the other files to their sha256. A tolerance bounds |a - b| / max(1, |reference|).
    """

    format_version: int
    digest: str
    name: str
    created: str
    files: dict[str, str]
    provenance: Provenance
    features: Features
    account: tuple[str, ...]
    actions: dict[str, int]
    instruments: dict[str, Instrument]
    timeframes: dict[str, Timeframe]
    allow_unknown_instrument: bool
    allow_unknown_timeframe: bool
    quantity: Quantity
    trading: Trading
    graph: Graph
    max_segments: int
    tolerances: dict[str, float]
    parity: tuple[Stage, ...]

    @property
    def id(self) -> str:
        """The artifact's id, which `load(path, sha256=...)` takes: the sha256 of the whole text."""
        return hashlib.sha256(canonical(self)).hexdigest()

    def __repr__(self) -> str:
        return f"Contract({brief(self, self.id)}, {self.bars_needed} bars needed)"

    @property
    def bars_needed(self) -> int:
        """Bars behind one decision: the history of the window's oldest row, and the window."""
        return self.features.history_bars + self.features.window - 1

    def instrument(self, name: str) -> Instrument:
        """The facts of `name`; those of `unknown` (id 0) where it was not trained on.

        Raises:
            UnknownInstrument: it was not trained on and the contract does not allow that.
        """
        if not isinstance(name, str):
            raise UnknownInstrument(f"instrument: expected a name, found {name!r}")
        known = self.instruments.get(name)
        if known is not None and known.id != 0:
            return known
        if not self.allow_unknown_instrument:
            names = self.instruments.keys() - {UNKNOWN}
            raise UnknownInstrument(not_known("instrument", name, names, "this artifact"))
        return self.instruments[UNKNOWN]

    def timeframe(self, name: str) -> str:
        """What this artifact calls the timeframe `name`, as `timeframe_of`."""
        if name in self.timeframes:
            return name
        return timeframe_of(name, {known: one.seconds for known, one in self.timeframes.items()})

    def timeframe_id(self, name: str) -> int:
        """The id of `name` in any spelling; 0 where it was not trained on, or is `unknown`.

        Raises:
            UnknownTimeframe: it was not trained on and the contract does not allow that, or it
                says no length either.
        """
        if self.allow_unknown_timeframe and isinstance(name, str) and name == UNKNOWN:
            return 0
        return self._timeframe(name).id

    def timeframe_seconds(self, name: str) -> int:
        """Length of a bar of `name`: as the contract says, or as the name does.

        Raises:
            UnknownTimeframe: as `timeframe_id`, or it is `unknown`.
        """
        return self._timeframe(name).seconds

    def _timeframe(self, name: str) -> Timeframe:
        if not isinstance(name, str):
            raise UnknownTimeframe(f"timeframe: expected a name, found {name!r}")
        if known := self.timeframes.get(self.timeframe(name)):
            return known
        if not self.allow_unknown_timeframe:
            raise UnknownTimeframe(not_known("timeframe", name, self.timeframes, "this artifact"))
        seconds = seconds_of(name)
        if seconds is None:
            raise UnknownTimeframe(
                f"timeframe: expected a name this artifact knows, or one such as {SPELLINGS}: the "
                f"length of its bars must be known; found {name!r}"
            )
        return Timeframe(id=0, seconds=seconds)


def brief(contract: Contract, model_id: str) -> str:
    """An artifact in a few words, for people: no program should rely on them."""
    graph = contract.graph
    size = f"{graph.cycles} x {graph.timesteps}"
    return f"{contract.name}, {graph.precision}, {size}, id {model_id[:12]}..."


def read_contract(text: bytes) -> Contract:
    """The contract written in `text`, verified against itself and this library.

    Raises:
        ArtifactDamaged: not JSON, not in canonical form, or the digest differs; where only its line
            ends were converted, the message says how to mend that.
        UnsupportedFormat: another format version.
        ContractInvalid: a field is missing, unknown, mistyped, or contradicts another field or
            this library's features, account or actions.
    """
    try:
        document = parse(text)
        version = document.get("format_version") if isinstance(document, Mapping) else None
        if version != FORMAT_VERSION:
            raise UnsupportedFormat(
                f"{CONTRACT}: this library reads format version {FORMAT_VERSION}, found "
                f"{version!r}; install the library that wrote it, or export again with this one"
            )
        contract = unseal(Contract, document, text)
    except LinesConverted as error:
        raise ArtifactDamaged(converted(CONTRACT)) from error
    except SealBroken as error:
        raise ArtifactDamaged(f"{CONTRACT}: {error}; export it again") from error
    except SchemaMismatch as error:
        raise ContractInvalid(f"{CONTRACT}: {error}") from error
    _verify(contract)
    return contract


def _verify(contract: Contract) -> None:
    """Raise `ContractInvalid` where the contract contradicts itself or this library."""
    features = contract.features
    if features.version != FEATURE_VERSION:
        raise ContractInvalid(
            f"{CONTRACT}: features.version: this library computes definition version "
            f"{FEATURE_VERSION}, found {features.version}; install the library that wrote it"
        )
    _same_names("features.names", FEATURES, features.names)
    _same_names("account", ACCOUNT, contract.account)
    if contract.actions != (expected := {action.name: int(action) for action in Action}):
        raise ContractInvalid(f"{CONTRACT}: actions: expected {expected}, found {contract.actions}")
    for holds, expectation in (
        (set(contract.files) == {MODEL, GOLDEN}, f"files: expected {MODEL} and {GOLDEN}"),
        *_expected_series(contract),
        *_expected_numbers(contract),
        *_expected_proof(contract),
    ):
        if not holds:
            raise ContractInvalid(f"{CONTRACT}: {expectation}")


_Expected = Iterator[tuple[bool, str]]
"""Whether something holds, and what was expected."""


def _expected_series(contract: Contract) -> _Expected:
    """Of the bars behind a window, and of the names that they may have."""
    features, instruments = contract.features, contract.instruments
    timeframes = contract.timeframes
    yield features.history_bars >= LEAST_HISTORY, f"history_bars: expected >= {LEAST_HISTORY}"
    yield features.window >= 1, "window: expected >= 1"
    yield _ids_unique(instruments, 0), f"instruments: expected ids once each, 0 for {UNKNOWN!r}"
    yield _ids_unique(timeframes, 1), "timeframes: expected ids from 1, once each"
    yield (
        UNKNOWN in instruments and instruments[UNKNOWN].id == 0,
        f"instruments: expected {UNKNOWN!r} with id 0",
    )
    yield (
        all(
            i.lot_size >= 1 and i.tick_size > 0 and 0 < i.premium_min <= i.premium_max
            for i in instruments.values()
        ),
        "instruments: expected lot_size >= 1, tick_size > 0, 0 < premium_min <= premium_max",
    )
    yield all(t.seconds >= 1 for t in timeframes.values()), "timeframes: expected seconds >= 1"


def _expected_numbers(contract: Contract) -> _Expected:
    """Of what is traded, and of the network's sizes."""
    graph, quantity = contract.graph, contract.quantity
    numbers = [quantity.min, *vars(contract.trading).values(), *contract.tolerances.values()]
    yield 1 <= quantity.min < quantity.max, "quantity: expected 1 <= min < max"
    yield all(n >= 0 and math.isfinite(n) for n in numbers), "expected finite numbers >= 0"
    yield (
        min(graph.cycles, graph.timesteps, graph.tokens, graph.h_dim, graph.l_dim) >= 1,
        "graph: expected sizes >= 1",
    )
    yield contract.max_segments >= 1, "max_segments: expected >= 1"
    yield (
        0 <= contract.provenance.trained_until < LATEST_MOMENT,
        "provenance.trained_until: expected epoch seconds",
    )


def _expected_proof(contract: Contract) -> _Expected:
    """Of what was compared with torch, and how closely."""
    graph, tolerances = contract.graph, contract.tolerances
    loosest = LARGEST_TOLERANCES[graph.precision]
    yield set(tolerances) == set(OUTPUTS), "tolerances: expected one per output"
    yield (
        all(tolerance <= loosest for tolerance in tolerances.values()),
        f"tolerances: expected at most {loosest}",
    )
    yield (
        (graph.precision == "int8") == bool(graph.input_scales)
        and all(0 < scale < math.inf for scale in graph.input_scales.values()),
        "graph.input_scales: expected scales above 0 for int8, none for others",
    )
    gated = [stage for stage in contract.parity if stage.gated]
    yield (
        len(gated) > 0 and all(map(_proven, gated)),
        "parity: expected at least one stage that had to pass, and that each of those did",
    )


def _proven(stage: Stage) -> bool:
    within = (output.beyond <= stage.allowance * stage.windows for output in stage.outputs.values())
    return (
        stage.passed
        and stage.allowance <= LARGEST_ALLOWANCE
        and set(stage.outputs) == set(OUTPUTS)
        and all(within)
    )


def _same_names(where: str, expected: tuple[str, ...], found: tuple[str, ...]) -> None:
    if found == expected:
        return
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    raise ContractInvalid(
        f"{CONTRACT}: {where}: expected this library's {len(expected)} names in order; "
        f"missing {missing}, unknown {extra}"
        + ("" if missing or extra else ", found the right names in another order or repeated")
    )


def _ids_unique(entries: Mapping[str, Instrument] | Mapping[str, Timeframe], least: int) -> bool:
    ids = [entry.id for entry in entries.values()]
    return len(set(ids)) == len(ids) and all(i >= least for i in ids)
