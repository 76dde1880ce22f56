"""A process that vLLM has started does not outlive who started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from medmoe.model.vllm_plugin.process import parent_death_watch

ROOT = Path(__file__).parents[4]
_PARENT = """
import multiprocessing, sys, time
from tests.unit.model.vllm_plugin.test_parent_death_watch import child
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child, args=(sys.argv[1] == "deaf",))
    process.start()
    time.sleep(600)
"""


def child(deaf: bool) -> None:
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        parent_death_watch._GRACE = 0.2
    parent_death_watch.end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(600)


def _orphaned(how: str, tmp_path: Path) -> psutil.Process:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), how], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    orphan = psutil.Process(int(parent.stdout.readline()))
    assert orphan.is_running()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    return orphan


def test_it_ends_when_its_parent_was_killed(tmp_path: Path) -> None:
    _orphaned("hearing", tmp_path).wait(timeout=300)


def test_it_ends_even_if_it_does_not_listen(tmp_path: Path) -> None:
    _orphaned("deaf", tmp_path).wait(timeout=300)
