"""Past bars walked through with one account, under rules that are data."""

from typing import TYPE_CHECKING

from hrm_runtime.lazy import lazily

if TYPE_CHECKING:
    from hrm_runtime.backtest.book import Book as Book
    from hrm_runtime.backtest.book import Exit as Exit
    from hrm_runtime.backtest.book import Trade as Trade
    from hrm_runtime.backtest.rules import HOST as HOST
    from hrm_runtime.backtest.rules import HOST_NO_TARGET as HOST_NO_TARGET
    from hrm_runtime.backtest.rules import HOST_OWN_PRICE as HOST_OWN_PRICE
    from hrm_runtime.backtest.rules import OURS as OURS
    from hrm_runtime.backtest.rules import RULES as RULES
    from hrm_runtime.backtest.rules import Rules as Rules
    from hrm_runtime.backtest.walk import CAPITAL as CAPITAL
    from hrm_runtime.backtest.walk import Backtest as Backtest
    from hrm_runtime.backtest.walk import Backtests as Backtests
    from hrm_runtime.backtest.walk import backtest as backtest
    from hrm_runtime.backtest.walk import backtests as backtests
    from hrm_runtime.backtest.walk import decision_bars as decision_bars

_HOME = {
    "Backtest": "walk",
    "Backtests": "walk",
    "Book": "book",
    "CAPITAL": "walk",
    "Exit": "book",
    "HOST": "rules",
    "HOST_NO_TARGET": "rules",
    "HOST_OWN_PRICE": "rules",
    "OURS": "rules",
    "RULES": "rules",
    "Rules": "rules",
    "Trade": "book",
    "backtest": "walk",
    "backtests": "walk",
    "decision_bars": "walk",
}

__all__ = sorted(_HOME)  # noqa: PLE0605, resolved below

__getattr__, __dir__ = lazily(__name__, _HOME)
