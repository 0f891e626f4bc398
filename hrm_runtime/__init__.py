"""Serve an exported Hierarchical Reasoning Model on CPU, without torch.

    from hrm_runtime import Account, Bars, load

    model = load("artifact")
    decision = model.decide(bars, account, instrument="Nifty", timeframe="5")

Names are resolved when first used, so importing this package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrm_runtime.account import Account
    from hrm_runtime.actions import Action
    from hrm_runtime.artifact import load, load_contract
    from hrm_runtime.bars import Bars, read_csv
    from hrm_runtime.contract import Contract
    from hrm_runtime.decision import Decision, Reason
    from hrm_runtime.errors import (
        ArtifactDamaged,
        ArtifactNotFound,
        BadAccount,
        BadBars,
        BadFeatures,
        BadInput,
        ContractInvalid,
        DoNotStart,
        HrmError,
        InferenceFailed,
        SelfTestFailed,
        TooFewBars,
        UnknownInstrument,
        UnknownTimeframe,
        UnsupportedFormat,
    )
    from hrm_runtime.model import Model

_HOMES = {
    "account": ("Account",),
    "actions": ("Action",),
    "artifact": ("load", "load_contract"),
    "bars": ("Bars", "read_csv"),
    "contract": ("Contract",),
    "decision": ("Decision", "Reason"),
    "errors": (
        "ArtifactDamaged",
        "ArtifactNotFound",
        "BadAccount",
        "BadBars",
        "BadFeatures",
        "BadInput",
        "ContractInvalid",
        "DoNotStart",
        "HrmError",
        "InferenceFailed",
        "SelfTestFailed",
        "TooFewBars",
        "UnknownInstrument",
        "UnknownTimeframe",
        "UnsupportedFormat",
    ),
    "model": ("Model",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Account",
    "Action",
    "ArtifactDamaged",
    "ArtifactNotFound",
    "BadAccount",
    "BadBars",
    "BadFeatures",
    "BadInput",
    "Bars",
    "Contract",
    "ContractInvalid",
    "Decision",
    "DoNotStart",
    "HrmError",
    "InferenceFailed",
    "Model",
    "Reason",
    "SelfTestFailed",
    "TooFewBars",
    "UnknownInstrument",
    "UnknownTimeframe",
    "UnsupportedFormat",
    "load",
    "load_contract",
    "read_csv",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
