"""`hrm_runtime.market.features`, by the name that the documents and programs use."""

from hrm_runtime.market.features import *  # noqa: F403, all of them
