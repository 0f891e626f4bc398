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
    from hrm_runtime.artifact.contract import Contract as Contract
    from hrm_runtime.artifact.decision import Decision as Decision
    from hrm_runtime.artifact.decision import Reason as Reason
    from hrm_runtime.artifact.folder import load as load
    from hrm_runtime.artifact.folder import load_contract as load_contract
    from hrm_runtime.artifact.model import Model as Model
    from hrm_runtime.errors import *  # noqa: F403, all of them
    from hrm_runtime.journal.writer import Journal as Journal
    from hrm_runtime.live.agent import HRMAgent as HRMAgent
    from hrm_runtime.live.engine import LiveEngine as LiveEngine
    from hrm_runtime.live.settings import LiveSettings as LiveSettings
    from hrm_runtime.market.account import Account as Account
    from hrm_runtime.market.actions import Action as Action
    from hrm_runtime.market.bars import Bar as Bar
    from hrm_runtime.market.bars import Bars as Bars
    from hrm_runtime.market.csv_files import read_csv as read_csv
    from hrm_runtime.market.hours import TradingHours as TradingHours

    __version__: str

_HOME = {
    "Account": "market.account",
    "Action": "market.actions",
    "Bar": "market.bars",
    "Bars": "market.bars",
    "Contract": "artifact.contract",
    "Decision": "artifact.decision",
    "HRMAgent": "live.agent",
    "Journal": "journal.writer",
    "LiveEngine": "live.engine",
    "LiveSettings": "live.settings",
    "Model": "artifact.model",
    "Reason": "artifact.decision",
    "TradingHours": "market.hours",
    "load": "artifact.folder",
    "load_contract": "artifact.folder",
    "read_csv": "market.csv_files",
    **dict.fromkeys(errors.__all__, "errors"),
}

__all__ = sorted(_HOME)  # noqa: PLE0605, resolved below

__getattr__, __dir__ = lazily(__name__, _HOME)
