"""`hrm_runtime.live.prometheus`, by the name that the documents and programs use."""

from hrm_runtime.live.prometheus import *  # noqa: F403, all of them
