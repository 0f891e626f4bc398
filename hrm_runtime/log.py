"""What this library tells the host's logging: a line per event, silent unless the host listens."""

import json
import logging
from contextlib import suppress
from typing import Final

LOGGER: Final = logging.getLogger("hrm_runtime")
LOGGER.addHandler(logging.NullHandler())


def log(level: int, event: str, error: BaseException | None = None, **fields: object) -> None:
    """Log `event` with `fields`, as `log_to` does, to the logger of this package."""
    log_to(LOGGER, level, event, error, **fields)


def log_to(
    logger: logging.Logger,
    level: int,
    event: str,
    error: BaseException | None = None,
    **fields: object,
) -> None:
    """Log `event` with `fields` as `event name="value" ...`.

    The fields are also in the record's attribute `hrm`, for handlers that write them as they are.
    What a host's handler raises stays there: a log that cannot be written is no reason to fail.

    Args:
        level: of `logging`.
        error: whose traceback goes with it.
    """
    if not logger.isEnabledFor(level):
        return
    text = " ".join(
        (event, *(f"{name}={json.dumps(value, default=str)}" for name, value in fields.items()))
    )
    with suppress(Exception):
        logger.log(level, "%s", text, exc_info=error, extra={"hrm": {"event": event, **fields}})
