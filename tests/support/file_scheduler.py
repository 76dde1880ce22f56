"""Divide the test files among the workers of pytest-xdist: `pytest -p tests.support.file_scheduler -n 2`."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

ENGINE_TESTS = "tests/engine/"


class FileScheduler(LoadFileScheduling):
    """Give each worker whole files, and all files that share the real engine to one worker."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        # In the order of collection the slow files come first. xdist's order puts files with few tests last.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return ENGINE_TESTS if nodeid.startswith(ENGINE_TESTS) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduler:
    """Replace the scheduler of `--dist`."""
    return FileScheduler(config, log)
