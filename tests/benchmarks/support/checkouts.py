"""Start the services of this checkout and of another one, a git worktree, side by side."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.service.server_process import ServerProcess, server_process

_START = 600.0
"""Seconds; a process that has failed is noticed at once."""
HERE = Path(__file__).parents[3]
"""This checkout."""
_ROOMS = ("model", "server", "training")


@contextmanager
def served(directory: Path, arguments: Sequence[str], settings: Mapping[str, str]) -> Iterator[ServerProcess]:
    """The service of the checkout in `directory`, ready; `arguments` of Python, of which it is to be a module."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "medmoe").mkdir()
        for room in _ROOMS:
            (place / "medmoe" / room).symlink_to(directory.resolve() / room)
        (place / "tests").symlink_to(directory.resolve() / "tests")
        # -P: not what lies in the directory where this was started.
        with server_process(arguments=("-P", *arguments), settings={**settings, "PYTHONPATH": folder}) as server:
            server.wait_ready(_START)
            yield server


def this_and_other(
    stack: ExitStack, other: Path | None, arguments: Sequence[str], settings: Mapping[str, str]
) -> dict[str, ServerProcess]:
    """Ready, until `stack` is left: `this`, and `other` where there is one."""
    servers = {"this": stack.enter_context(served(HERE, arguments, settings))}
    if other is not None:
        servers["other"] = stack.enter_context(served(other, arguments, settings))
    return servers
