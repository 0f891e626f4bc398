"""`hrm_runtime.measure.trace`, by the name that the documents and programs use."""

from hrm_runtime.measure.trace import *  # noqa: F403, all of them
