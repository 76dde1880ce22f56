"""A killed process leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from medmoe.server.engine.process_tree import ProcessTree

_ENGINE = """
import subprocess, sys
from multiprocessing import shared_memory, resource_tracker
memory = shared_memory.SharedMemory(create=True, size=64)
resource_tracker.unregister(memory._name, "shared_memory")
worker = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdout.write('x'); sys.stdout.flush(); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdout.read(1)
print(worker.pid, memory.name, flush=True)
input()
"""
"""Stubborn in its orphans: the worker waits for a word on a pipe that its death closes, or that nobody will close."""


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def started(engine: subprocess.Popen[str]) -> tuple[ProcessTree, psutil.Process, Path]:
    assert engine.stdout is not None
    worker, name = engine.stdout.readline().split()
    return ProcessTree([engine.pid]), psutil.Process(int(worker)), Path("/dev/shm", name)


def test_what_a_killed_process_leaves_is_cleared(engine: subprocess.Popen[str]) -> None:
    tree, worker, memory = started(engine)
    assert tree.is_whole()
    # An orphan that does not notice by itself.
    worker.suspend()
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    assert not tree.is_whole()
    assert memory.exists()
    tree.clear(grace=0.1)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert not memory.exists()
    tree.clear(grace=0.1)


def test_what_openmp_leaves_is_swept_once_nobody_has_that_process_id(engine: subprocess.Popen[str]) -> None:
    tree, _, _ = started(engine)
    left, used = (Path("/dev/shm", f"__KMP_REGISTERED_LIB_{pid}_{os.getuid()}") for pid in (engine.pid, os.getpid()))
    foreign = Path("/dev/shm", f"__KMP_REGISTERED_LIB_{engine.pid}_{os.getuid() + 1}")
    try:
        for file in (left, used, foreign):
            file.touch()
        engine.kill()
        engine.wait()
        tree.clear(grace=0.1)
        assert not left.exists()
        assert used.exists()
        assert foreign.exists()
    finally:
        for file in (left, used, foreign):
            file.unlink(missing_ok=True)


def test_what_ends_by_itself_is_given_the_time(engine: subprocess.Popen[str]) -> None:
    tree, worker, _ = started(engine)
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    tree.clear(grace=60)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
