"""Log lines as JSON objects that cannot carry content.

Our own lines are written content-free; what libraries log is not ours to trust, so of theirs only the logger's name
and the kind of exception are kept.
"""

import json
import logging
import logging.config
from datetime import UTC, datetime

from medmoe.server.observability.log_handler import BufferedHandler

_TRUSTED = ("medmoe", "uvicorn")
_ENCODE = json.JSONEncoder(default=str).encode
"""Made once: `json.dumps` makes one for each line."""


class JsonFormatter(logging.Formatter):
    """One line per record; an exception is its class name, never its text."""

    def format(self, record: logging.LogRecord) -> str:
        trusted = record.name.split(".")[0] in _TRUSTED
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if trusted and not record.exc_info else "(text withheld)",
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
        return _ENCODE(line)


def configure(level: str) -> None:
    """Send every logger of this process to standard error, one JSON object a line.

    Of uvicorn only warnings: its debug lines are about what was sent, and the service says itself when it is ready.
    """
    foreign = max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonFormatter}},
            "handlers": {"stderr": {"()": BufferedHandler, "formatter": "json"}},
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {"medmoe": {"level": level.upper()}, "uvicorn": {"level": foreign, "handlers": []}},
        }
    )
