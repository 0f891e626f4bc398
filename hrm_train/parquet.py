"""`hrm_train.data.parquet`, by the name that the documents and programs use."""

from hrm_train.data.parquet import *  # noqa: F403, all of them
