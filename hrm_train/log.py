"""What training tells the logging of who calls it: as `hrm_runtime.log`, to a logger of its own."""

import logging
from typing import Final

from hrm_runtime.log import log_to

LOGGER: Final = logging.getLogger("hrm_train")
LOGGER.addHandler(logging.NullHandler())


def log(level: int, event: str, **fields: object) -> None:
    """Log `event` with `fields`, as `hrm_runtime.log.log_to` does."""
    log_to(LOGGER, level, event, None, **fields)
