"""`hrm_runtime.market.actions`, by the name that the documents and programs use."""

from hrm_runtime.market.actions import *  # noqa: F403, all of them
