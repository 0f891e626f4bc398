"""Bars and their files, by the name that the documents and programs use."""

from hrm_runtime.market.bars import *  # noqa: F403, all of them
from hrm_runtime.market.csv_files import *  # noqa: F403, all of them
from hrm_runtime.market.series import *  # noqa: F403, all of them
from hrm_runtime.market.stamps import *  # noqa: F403, all of them
