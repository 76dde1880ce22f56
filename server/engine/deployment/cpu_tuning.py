"""Choose processes, threads and memory of the engine on a CPU.

Answers do not depend on these settings, only latency and throughput do. They are read when the engine's process starts,
not when vLLM is imported. tests/benchmarks/LOG.md has the measured effect of each.
"""

import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from medmoe.server.engine.deployment.parallelism import thread_binding
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu
from medmoe.server.settings import Settings

ONE_PROCESS = "medmoe.model.vllm_plugin.process.uniproc_executor.CPUUniProcExecutor"
"""For vLLM's argument `distributed_executor_backend`."""
_THREAD_BINDING = "VLLM_CPU_OMP_THREADS_BIND"
_FEW_CORES = 4
_GIB = 2**30
_MALLOC = ":".join(
    (
        # An activation is megabytes, and by default glibc asks the kernel for each anew: a page fault every 4 KiB.
        f"glibc.malloc.mmap_threshold={_GIB}",
        f"glibc.malloc.trim_threshold={_GIB}",
        f"glibc.malloc.top_pad={64 * 2**20}",
        # And where the kernel leaves it to programs, in pages of 2 MiB.
        "glibc.malloc.hugetlb=1",
    )
)
_OPENMP = ("libiomp", "libomp", "libgomp")
# How long a thread without work spins before it sleeps. Both libraries would spin longer than one layer takes, on cores
# that the service needs; not to spin at all makes every one of an answer's hundreds of parallel regions wait for the
# kernel.
_INTEL_SPIN = {"KMP_BLOCKTIME": "1"}
"""Milliseconds."""
_GNU_SPIN = {"GOMP_SPINCOUNT": "10000"}
"""Turns of its loop."""


def tune(settings: Settings) -> None:
    """Set what the engine's processes inherit; an operator's own values stay. Nothing on a GPU."""
    if not built_for_cpu():
        return
    os.environ.setdefault("GLIBC_TUNABLES", _MALLOC)
    preloaded = os.environ.get("LD_PRELOAD", "")
    intel = _intel_openmp()
    if intel is not None and not any(name in preloaded for name in _OPENMP):
        preloaded = os.environ["LD_PRELOAD"] = ":".join(filter(None, (preloaded, intel)))
    for name, value in (_INTEL_SPIN if "libiomp" in preloaded else _GNU_SPIN).items():
        os.environ.setdefault(name, value)
    if in_one_process(settings):
        os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    elif (binding := cpu_threads(settings)) is not None:
        os.environ[_THREAD_BINDING] = binding


def in_one_process(settings: Settings) -> bool:
    """Return whether scheduler and worker share a process: on few cores, if no thread binding is set.

    The service uses those cores too, and the kernel places threads better than a fixed binding. With more cores vLLM's
    own way stays, for want of a measurement.
    """
    few = len(os.sched_getaffinity(0)) <= _FEW_CORES
    return built_for_cpu() and settings.tensor_parallel_size == 1 and few and _THREAD_BINDING not in os.environ


def cpu_threads(settings: Settings) -> str | None:
    """Return the cores of each rank; None on a GPU. Raises DeploymentError as `thread_binding` does."""
    if not built_for_cpu():
        return None
    asked = os.environ.get(_THREAD_BINDING)
    return thread_binding(os.sched_getaffinity(0), ranks=settings.tensor_parallel_size, asked=asked)


def _intel_openmp() -> str | None:
    """Return Intel's OpenMP library of vLLM's x86 packages; None if it is missing or its path cannot be named.

    The loader splits what it preloads at colons and spaces.
    """
    try:
        files = distribution("intel-openmp").files or ()
    except PackageNotFoundError:
        return None
    for file in files:
        path = str(Path(str(file.locate())).resolve())
        if file.name == "libiomp5.so" and not set(path) & set(": ") and Path(path).is_file():
            return path
    return None
