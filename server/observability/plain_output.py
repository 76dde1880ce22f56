"""Write the plain lines of libraries and child processes as JSON log lines."""

import contextlib
import logging
import os
import re
import select
import sys
import threading
from collections.abc import Iterator

log = logging.getLogger("medmoe.output")

_LONGEST = 16 * 1024
"""Characters of one line; the rest of a longer one becomes lines of its own."""
_LAST_SECONDS = 5.0
"""Time in which what has been printed by the end is logged; a child process may go on printing for ever."""
_LEVELS = {"D": logging.DEBUG, "I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
_PROCESS = re.compile(r"^\((?P<process>[\w:.-]+) pid=\d+\) ?")
_FORMATS = (
    # vLLM: WARNING 11-29 07:47:33 [core.py:123] text
    re.compile(r"^(?P<level>[DIWEC])[A-Z]{3,} \d\d-\d\d [\d:]+ \[(?P<source>[^\]]+)\] (?P<text>.*)$"),
    # torch in Python and in C++: W1129 07:47:17.804000 25766 torch/library.py:53] text
    re.compile(r"^\[?(?P<level>[DIWEF])\d{4} [\d:.]+ (?:\d+ )?(?P<source>\S+)\] (?P<text>.*)$"),
)
_HARMLESS = (
    # What the service asks for on a CPU: no chunked prefill, no compilation, bound threads, kernels of its own.
    "does not officially support disabling chunked prefill",
    "Enforce eager set, disabling torch.compile",
    "Inductor compilation was disabled by user settings",
    "doesn't allow to use `torch.set_num_threads` after the thread binding",
    "registering new impl medmoe_cpu for op",
    "NUMA binding: Using MEMBIND policy",
    # glibc's own allocator is tuned instead.
    "libtcmalloc is not found",
    # What no checkpoint of ours uses.
    "Triton not available",
    "Model Runner V2 requires Triton",
    "Failed to import the DeepSelect extension",
    "Reset SSM cache type",
    "does not support mm_device_do_normalize",
)


@contextlib.contextmanager
def plain_output_as_json() -> Iterator[None]:
    """Redirect standard output and error, of child processes too, into the log while inside.

    The root logger's handlers go on writing to the standard error that was there before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    reading, writing = os.pipe()
    stopping, stop = os.pipe()
    handlers = [handler for handler in logging.getLogger().handlers if type(handler).__module__.startswith("medmoe")]
    with os.fdopen(os.dup(saved[1]), "w", encoding="utf-8", errors="backslashreplace") as stream:
        for handler in handlers:
            handler.setStream(stream)  # type: ignore[attr-defined]
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        reader = threading.Thread(target=_read, args=(reading, stopping), name="plain-output", daemon=True)
        reader.start()
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(stop)
            reader.join(_LAST_SECONDS)
            for handler in handlers:
                handler.flush()
                handler.setStream(sys.stderr)  # type: ignore[attr-defined]
            # A thread that is still there keeps what it reads from.
            for descriptor in (*saved, *(() if reader.is_alive() else (reading, stopping))):
                os.close(descriptor)


def _read(reading: int, stopping: int) -> None:
    """Log line by line until `stopping` is closed at its other end and nothing more waits in `reading`."""
    waiting = ""
    while True:
        ready, _, _ = select.select([reading, stopping], [], [])
        if reading not in ready or not (read := os.read(reading, _LONGEST)):
            break
        # A progress bar ends its lines with a carriage return.
        waiting += read.decode("utf-8", errors="backslashreplace").replace("\r", "\n")
        *lines, waiting = waiting.split("\n")
        if len(waiting) > _LONGEST:
            lines, waiting = [*lines, waiting], ""
        for line in lines:
            write_line(line)
    write_line(waiting)


def write_line(line: str) -> None:
    """Log one plain line with the level and source that it names, a warning where it names none; drop harmless ones."""
    process = _PROCESS.match(line)
    text = line[process.end() :] if process else line
    if not text.strip() or any(harmless in text for harmless in _HARMLESS):
        return
    fields = {"process": process["process"]} if process else {}
    found = next((match for known in _FORMATS if (match := known.match(text))), None)
    if found is None:
        log.warning("%s", text, extra={"fields": fields})
        return
    level = logging.CRITICAL if found["level"] == "C" else _LEVELS[found["level"]]
    log.log(level, "%s", found["text"], extra={"fields": {**fields, "source": found["source"]}})
