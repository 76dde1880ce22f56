"""Log JSON lines that cannot carry content, without ever waiting for their reader.

The service's own lines are written content-free; of a library's line only the logger's name and the class of an
exception are kept.
"""

import asyncio
import io
import json
import logging
import logging.config
import os
import select
from datetime import UTC, datetime
from typing import TextIO

_TRUSTED = ("medmoe", "uvicorn")
_ENCODE = json.JSONEncoder(default=str, check_circular=False).encode
"""Made once: `json.dumps` makes one for each line."""
_SECONDS = 0.02
"""Time that a line may wait for others: each write wakes the reader, on a core that the answers could use."""
_RETRY_SECONDS = 0.25
"""Time between two looks at a reader that does not read."""
_LAST_SECONDS = 1.0
"""Time that the end of the process waits for such a reader."""
_MOST_LINES = 256
"""Lines that wait for each other."""
_MOST_WAITING = 10_000
"""Lines that wait for the reader; later ones are lost."""
_PIECE = select.PIPE_BUF
"""Bytes that a pipe which is ready takes without blocking."""


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


class BufferedHandler(logging.StreamHandler[TextIO]):
    """Write to standard error: lines below a warning a few at a time, and none that would block."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._rest = b""
        """The end of what has been written in part."""
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler, whose lock is held meanwhile."""
        try:
            if len(self._lines) >= _MOST_WAITING:
                self._lost += 1
                return
            self._lines.append(self.format(record) + self.terminator)
            if record.levelno > logging.INFO or len(self._lines) >= _MOST_LINES or not self._flush_in(_SECONDS):
                self.flush()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits, as far as the reader takes it now."""
        self._flush(patience=0.0)

    def close(self) -> None:
        """Write what waits, as far as the reader takes it within a second; logging calls this at the process' end."""
        self._flush(patience=_LAST_SECONDS)
        super().close()

    def _flush(self, *, patience: float) -> None:
        self.acquire()
        try:
            self._timer = None
            while self._lines or self._rest:
                if not self._write(patience=patience):
                    self._flush_in(_RETRY_SECONDS)
                    return
                if self._lost:
                    lost, self._lost = self._lost, 0
                    about = {
                        "name": __name__,
                        "levelname": "WARNING",
                        "msg": "log lines lost",
                        "fields": {"count": lost},
                    }
                    self._lines.append(self.format(logging.makeLogRecord(about)) + self.terminator)
            super().flush()
        except (OSError, ValueError):
            # The reader has gone, the disk is full, or the stream is closed.
            self._lines, self._rest = [], b""
        finally:
            self.release()

    def _write(self, *, patience: float) -> bool:
        """Write all that waits; return False when the reader takes no more of it."""
        try:
            descriptor = self.stream.fileno()
        except io.UnsupportedOperation:
            # A stream in memory, which does not block.
            lines, self._lines = self._lines, []
            self.stream.write("".join(lines))
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while self._rest or self._lines:
            if not self._rest:
                lines, self._lines = self._lines[:_MOST_LINES], self._lines[_MOST_LINES:]
                self._rest = "".join(lines).encode(errors="backslashreplace")
            if not poll.poll(patience * 1000):
                return False
            self._rest = self._rest[os.write(descriptor, self._rest[:_PIECE]) :]
        return True

    def _flush_in(self, seconds: float) -> bool:
        """Flush later; return False outside of an event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        # A loop that has ended since leaves its timer unfired.
        if self._timer is None or self._timer.cancelled() or self._timer.when() < loop.time() - _RETRY_SECONDS:
            self._timer = loop.call_later(seconds, self.flush)
        return True


def configure(level: str) -> None:
    """Send every logger of this process to standard error, one JSON object a line.

    Of uvicorn only warnings: its debug lines are about what was sent, and the service says itself when it is ready.
    """
    # Nothing tells a record's thread, process or source line; finding them out takes time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
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
