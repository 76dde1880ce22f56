"""Notes what importing costs in every process of a tree. tests.benchmarks.start_up copies it to where Python looks for
a sitecustomize, so that each interpreter runs it first; it imports nothing that a start would not.

One file a process, beside this one: a line of JSON for each import that nobody else's import caused, with the time that
it took and the time when it was over, by the system's clock.
"""

import importlib.machinery
import json
import os
import threading
import time
from types import ModuleType

_WORTH_NOTING = 0.005
_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib is not imported this early)
_inside = threading.local()


def _watch(loader: type) -> None:
    original = loader.exec_module  # type: ignore[attr-defined]

    def exec_module(self: object, module: ModuleType) -> None:
        if getattr(_inside, "depth", 0):
            original(self, module)
            return
        _inside.depth = 1
        begun = time.perf_counter()
        try:
            original(self, module)
        finally:
            _inside.depth = 0
            seconds = time.perf_counter() - begun
            if seconds > _WORTH_NOTING:
                _note(module=module.__name__, seconds=seconds)

    loader.exec_module = exec_module  # type: ignore[attr-defined]


def _note(**fields: object) -> None:
    # Opened each time: a forked process has a file of its own.
    with open(os.path.join(_FOLDER, f"{os.getpid()}.jsonl"), "a") as file:  # noqa: PTH118, PTH123
        file.write(json.dumps(fields | {"at": time.time()}) + "\n")


if __name__ == "sitecustomize":
    _note(begun=True)
    _watch(importlib.machinery.SourceFileLoader)
    _watch(importlib.machinery.ExtensionFileLoader)
