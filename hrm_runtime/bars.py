"""`hrm_runtime.market.bars`, by the name that the documents and programs use."""

from hrm_runtime.market.bars import *  # noqa: F403, all of them
