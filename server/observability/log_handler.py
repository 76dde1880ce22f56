"""Writing log lines a few at a time.

Apart from the lines' format. Each write wakes whoever collects them, on a core that the answers could use: a line for
each of a thousand refusals a second costs more to hand over than the refusal itself.
"""

import asyncio
import logging
from typing import TextIO

_SECONDS = 0.02
"""That a line may wait; what a process that is killed has not written yet."""
_MOST_LINES = 256


class BufferedHandler(logging.StreamHandler[TextIO]):
    """To standard error. On the event loop lines wait for each other a moment; warnings and worse do not."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler, whose lock is held meanwhile."""
        try:
            self._lines.append(self.format(record) + self.terminator)
            if record.levelno > logging.INFO or len(self._lines) >= _MOST_LINES or not self._flushed_later():
                self.flush()
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits; logging also does when the process ends."""
        self.acquire()
        try:
            if self._lines:
                lines, self._lines = self._lines, []
                self.stream.write("".join(lines))
            super().flush()
        finally:
            self.release()

    def _flushed_later(self) -> bool:
        """See to it; False outside of an event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        # The first to wait; a loop that has ended since leaves what waited to the end of the process.
        if len(self._lines) == 1:
            loop.call_later(_SECONDS, self.flush)
        return True
