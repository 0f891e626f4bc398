"""Every error `hrm_runtime` raises, as a tree named by what the operator does about it.

    HrmError
    ├── DoNotStart              the artifact cannot be trusted: do not trade with it
    │   ├── ArtifactNotFound    the path is missing, unreadable or not an artifact folder
    │   ├── ArtifactDamaged     bytes differ from what the contract or the caller's hash promises
    │   ├── UnsupportedFormat   written for another version of this library
    │   ├── ContractInvalid     the contract contradicts itself, its graph or this library
    │   └── SelfTestFailed      the golden vectors do not replay on this machine
    ├── BadInput                the caller's bug: mend the call, nothing was decided
    │   ├── BadBars
    │   │   └── NothingToDecide sound bars: motionless, all too early or too few
    │   │       └── TooFewBars
    │   ├── BadAccount
    │   ├── BadFeatures
    │   ├── JournalUnreadable
    │   ├── UnknownInstrument
    │   └── UnknownTimeframe
    ├── InferenceFailed         skip this decision and raise an alert
    ├── Untrusted               a strict live engine, where others answer HOLD: do not trade
    └── GateFailed              a result was computed and is not good enough: do not ship it

Each message says what was expected, what was found, where, and what to do.
"""

__all__ = [
    "ArtifactDamaged",
    "ArtifactNotFound",
    "BadAccount",
    "BadBars",
    "BadFeatures",
    "BadInput",
    "ContractInvalid",
    "DoNotStart",
    "GateFailed",
    "HrmError",
    "InferenceFailed",
    "JournalUnreadable",
    "NothingToDecide",
    "SelfTestFailed",
    "TooFewBars",
    "UnknownInstrument",
    "UnknownTimeframe",
    "UnsupportedFormat",
    "Untrusted",
]


class HrmError(Exception):
    """Base of every error this library raises on purpose."""


class DoNotStart(HrmError):
    """The artifact cannot be trusted; a process that needs it must not start trading."""


class ArtifactNotFound(DoNotStart):
    """The path is missing, unreadable, or not an artifact folder."""


class ArtifactDamaged(DoNotStart):
    """The bytes on disk are not the bytes that were written."""


class UnsupportedFormat(DoNotStart):
    """The artifact was written in a format this library does not read."""


class ContractInvalid(DoNotStart):
    """The contract contradicts itself, its graph, or this library's definitions."""


class SelfTestFailed(DoNotStart):
    """The golden vectors gave other outputs on this machine than they did in torch."""


class BadInput(HrmError, ValueError):
    """The caller passed something no decision can be computed from."""


class BadBars(BadInput):
    """Bars that are conflicting, impossible, or not readable as bars."""


class NothingToDecide(BadBars):
    """Bars that are sound and give nothing to decide on: they never move, or are all too early."""


class TooFewBars(NothingToDecide):
    """Not enough history for one feature row or one window."""


class BadAccount(BadInput):
    """An account that contradicts itself."""


class BadFeatures(BadInput):
    """Arrays of the wrong name, width, length, type or range."""


class JournalUnreadable(BadInput):
    """A journal that is missing, damaged, locked, of another version, or not one of ours."""


class UnknownInstrument(BadInput):
    """An instrument the artifact was not trained on, where it does not allow unknown ones."""


class UnknownTimeframe(BadInput):
    """A timeframe the artifact was not trained on, where it does not allow unknown ones."""


class InferenceFailed(HrmError):
    """onnxruntime failed while running the graph."""


class Untrusted(HrmError):
    """What a live engine cannot trust, and answers with HOLD unless it is strict.

    Attributes:
        reason: a `decision.Reason`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class GateFailed(HrmError):
    """A comparison or a limit was checked and not met."""
