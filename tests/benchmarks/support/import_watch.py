"""Note what importing costs in every process of a tree. tests.benchmarks.start_up copies it to where Python looks for
a sitecustomize, so that each interpreter runs it first; it imports nothing that a start would not.

One file a process, beside this one: a line of JSON for each import that nobody else's import caused, with the time that
it took, and how much of it each top-level package's own modules took.
"""

import importlib.machinery
import json
import os
import threading
import time
from types import ModuleType

_WORTH_NOTING = 0.005
_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib is not imported this early)
_thread = threading.local()


class _Outermost:
    """One import and all that it caused."""

    def __init__(self) -> None:
        self.inner = [0.0]
        """Of each module whose import has begun, what the imports in it took."""
        self.packages: dict[str, float] = {}

    def run(self, name: str, action: object, *given: object) -> float:
        self.inner.append(0.0)
        begun = time.perf_counter()
        try:
            action(*given)  # type: ignore[operator]
        finally:
            seconds = time.perf_counter() - begun
            package = name.partition(".")[0]
            self.packages[package] = self.packages.get(package, 0.0) + seconds - self.inner.pop()
            self.inner[-1] += seconds
        return seconds


def _watch(loader: type) -> None:
    original = loader.exec_module  # type: ignore[attr-defined]

    def exec_module(self: object, module: ModuleType) -> None:
        outermost = getattr(_thread, "outermost", None)
        if outermost is not None:
            outermost.run(module.__name__, original, self, module)
            return
        outermost = _thread.outermost = _Outermost()
        try:
            seconds = outermost.run(module.__name__, original, self, module)
        finally:
            _thread.outermost = None
        if seconds > _WORTH_NOTING:
            _note(module=module.__name__, seconds=seconds, packages=outermost.packages)

    loader.exec_module = exec_module  # type: ignore[attr-defined]


def _note(**fields: object) -> None:
    # Opened each time: a forked process has a file of its own, and one that decodes images may write none.
    try:
        with open(os.path.join(_FOLDER, f"{os.getpid()}.jsonl"), "a") as file:  # noqa: PTH118, PTH123
            file.write(json.dumps(fields) + "\n")
    except OSError:
        return


if __name__ == "sitecustomize":
    _watch(importlib.machinery.SourceFileLoader)
    _watch(importlib.machinery.ExtensionFileLoader)
