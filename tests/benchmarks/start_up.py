"""Measure the seconds between the start of an installed service and its readiness, process by process.

    python -m tests.benchmarks.start_up [--engine fake] [--repeats 5] [--json FILE]

A server is started, and ended when it is ready, `--repeats` times; figures are medians. `imports` is the wall time of
importing in one process, measured by a hook in every interpreter of the tree (tests/benchmarks/support/import_watch.py;
forked processes inherit what is imported). `engine` is VllmEngine.start with the import of vLLM; `warm-up` is the first
question. What vLLM says of its own start (loading weights, profiling) is read from its log. The first repeat may read
files from a disk that the others find in memory: it is shown beside the median.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

import psutil

from tests.benchmarks.support import import_watch
from tests.benchmarks.support.load import print_table
from tests.benchmarks.support.machine import describe, machine
from tests.benchmarks.support.timed_server import ARGUMENTS, PHASES
from tests.support.service.server_process import ServerProcess, server_process

_START = 3600.0
_POLL = 0.01
_READY = '"message": "ready"'
_TOOK = re.compile(r"(Loading weights|Model loading|init engine).* took .*?([\d.]+) s(?:econds)?\b")
_MOST = 6
"""Packages shown of each process."""

Start = dict[str, float]
"""Seconds by what took them."""


def once(settings: dict[str, str]) -> tuple[Start, dict[str, list[tuple[str, float]]]]:
    """Start and end one server: seconds, and what each process imported."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        copyfile(import_watch.__file__, place / "sitecustomize.py")
        phases = place / "phases"
        given = {
            "PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH")))),
            PHASES: str(phases),
            "VLLM_LOGGING_LEVEL": "INFO",
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        }
        begun = time.time()
        with server_process(arguments=ARGUMENTS, settings=settings | given) as process:
            found: Start = {"server listens": time.time() - begun}
            _wait_ready(process)
            found["ready"] = time.time() - begun
            roles = _roles(process, found)
            process.stop()
            for line in process.lines:
                if (told := _TOOK.search(line)) is not None:
                    found[f"vLLM: {told[1]}"] = float(told[2])
        for line in phases.read_text().splitlines():
            phase = json.loads(line)
            found[phase["phase"]] = phase["seconds"]
        modules = {role: _imports(place / f"{pid}.jsonl") for pid, role in roles.items()}
    for role, imports in modules.items():
        found[f"{role}: imports"] = sum(seconds for _, seconds in imports)
    return found, modules


def _wait_ready(process: ServerProcess) -> None:
    """By the log: whoever asks over HTTP all the time takes a good part of a core from what is starting.

    Raises RuntimeError when the process has ended, or TimeoutError.
    """
    end = time.monotonic() + _START
    while time.monotonic() < end:
        if any(_READY in line for line in process.lines):
            return
        if process.process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.process.returncode}: {''.join(process.lines)}")
        time.sleep(_POLL)
    raise TimeoutError("the server was not ready in time")


def _roles(process: ServerProcess, found: Start) -> dict[int, str]:
    """What each process of the tree is, by its id; notes its processor time in `found`."""
    root = psutil.Process(process.process.pid)
    roles, seen = {}, Counter[str]()
    for one in (root, *sorted(root.children(recursive=True), key=lambda child: child.create_time())):
        role = "server" if one == root else _role(" ".join([one.name(), *one.cmdline()]))
        seen[role] += 1
        roles[one.pid] = role if seen[role] == 1 else f"{role} {seen[role]}"
        spent = one.cpu_times()
        found[f"{roles[one.pid]}: CPU"] = spent.user + spent.system
    return roles


def _role(words: str) -> str:
    for mark in ("resource_tracker", "decoder_process"):
        if mark in words:
            return mark
    title = re.search(r"VLLM::\S+|EngineCore\S*|Worker\S*", words)
    return title[0] if title else "child"


def _imports(notes: Path) -> list[tuple[str, float]]:
    """Seconds of each top-level package's own modules, largest first; nothing for a process that imported nothing."""
    if not notes.exists():
        return []
    seconds: dict[str, float] = defaultdict(float)
    for line in notes.read_text().splitlines():
        for package, own in json.loads(line)["packages"].items():
            seconds[package] += own
    return sorted(seconds.items(), key=lambda item: -item[1])


def rows(starts: Sequence[Start]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for start in starts for name in start))
    found = []
    for name in names:
        values = [start[name] for start in starts if name in start]
        found.append(
            {
                "what": name,
                "s (median)": statistics.median(values),
                "least": min(values),
                "most": max(values),
                "first": starts[0].get(name, "-"),
                "of": len(values),
            }
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    parser.add_argument("--model", help="checkpoint directory; the bundled one without it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures of every repeat there too")
    options = parser.parse_args()
    here = machine()
    settings = {"MEDMOE_ENGINE": options.engine} | ({"MEDMOE_MODEL": options.model} if options.model else {})
    starts, modules = [], {}
    for repeat in range(options.repeats):
        print(f"repeat {repeat}", file=sys.stderr, flush=True)
        start, modules = once(settings)
        starts.append(start)
    print(describe(here) + "\n")
    print_table(rows(starts))
    print("\nLargest imports of the last start, seconds in a package's own modules:\n")
    print_table([{"process": role, "imports": dict(imports[:_MOST])} for role, imports in modules.items()])
    if options.json:
        options.json.write_text(json.dumps({"machine": here, "starts": starts, "imports": modules}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
