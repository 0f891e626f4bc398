"""Serve an exported Hierarchical Reasoning Model on CPU, without torch.

    from hrm_runtime import Account, Bars, load

    model = load("artifact")
    decision = model.decide(bars, account, instrument="Nifty", timeframe="5")

Names are resolved when first used, so importing this package costs next to nothing.
"""

from typing import TYPE_CHECKING

from hrm_runtime import errors
from hrm_runtime.lazy import lazily

if TYPE_CHECKING:
    from hrm_runtime.account import Account as Account
    from hrm_runtime.actions import Action as Action
    from hrm_runtime.agent import HRMAgent as HRMAgent
    from hrm_runtime.artifact import load as load
    from hrm_runtime.artifact import load_contract as load_contract
    from hrm_runtime.bars import Bar as Bar
    from hrm_runtime.bars import Bars as Bars
    from hrm_runtime.bars import read_csv as read_csv
    from hrm_runtime.contract import Contract as Contract
    from hrm_runtime.decision import Decision as Decision
    from hrm_runtime.decision import Reason as Reason
    from hrm_runtime.engine import LiveEngine as LiveEngine
    from hrm_runtime.errors import *  # noqa: F403, all of them
    from hrm_runtime.hours import TradingHours as TradingHours
    from hrm_runtime.journal import Journal as Journal
    from hrm_runtime.live_settings import LiveSettings as LiveSettings
    from hrm_runtime.model import Model as Model

    __version__: str

_HOME = {
    "Account": "account",
    "Action": "actions",
    "Bar": "bars",
    "Bars": "bars",
    "Contract": "contract",
    "Decision": "decision",
    "HRMAgent": "agent",
    "Journal": "journal",
    "LiveEngine": "engine",
    "LiveSettings": "live_settings",
    "Model": "model",
    "Reason": "decision",
    "TradingHours": "hours",
    "load": "artifact",
    "load_contract": "artifact",
    "read_csv": "bars",
    **dict.fromkeys(errors.__all__, "errors"),
}

__all__ = sorted(_HOME)  # noqa: PLE0605, resolved below

__getattr__, __dir__ = lazily(__name__, _HOME)
