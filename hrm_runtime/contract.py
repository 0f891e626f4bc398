"""`hrm_runtime.artifact.contract`, by the name that the documents and programs use."""

from hrm_runtime.artifact.contract import *  # noqa: F403, all of them
from hrm_runtime.market.instruments import *  # noqa: F403, facts that a contract states
from hrm_runtime.market.names import *  # noqa: F403, what a timeframe is called
