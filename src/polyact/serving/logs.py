"""Structured logs: one JSON object per line, with an event's name and its facts. Nothing that a client sent is logged, and no key."""

import json
import logging
import sys
import time
from typing import Any

LOGGER = logging.getLogger("polyact.serving")


def event(name: str, level: int = logging.INFO, **facts: Any) -> None:
    """Log that something happened."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, name, extra={"facts": facts})


class Lines(logging.Formatter):
    """{"time": ISO 8601 in UTC, "level": ..., "event": ..., fact: value, ...}"""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": stamp, "level": record.levelname.lower(), "event": record.getMessage()} | getattr(record, "facts", {})
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to_stderr(level: int = logging.INFO) -> None:
    """Write this process's serving logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False
