"""Messages as JSON, one object a line: for who collects logs rather than reads them (`--log-json`)."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


def log_line(level: str, logger: str, message: str, at: datetime | None = None) -> str:
    """One message; what is not ASCII is escaped, so that no text can break the line or steer a terminal."""
    when = (at or datetime.now(UTC)).isoformat(timespec="milliseconds")
    return json.dumps({"at": when, "level": level, "logger": logger, "message": message})


class JsonLines(logging.Formatter):
    """Log records as `log_line`s; of an exception its type and words, not the stack, which may quote what it held."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            message += f" ({record.exc_info[0].__name__}: {record.exc_info[1]})"
        at = datetime.fromtimestamp(record.created, UTC)
        return log_line(record.levelname.lower(), record.name, message, at)
