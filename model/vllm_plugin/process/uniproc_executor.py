"""Run vLLM's scheduler and its only worker in one process, also on a CPU.

Give this class in the engine's arguments. vLLM's CPU platform turns its own "uni" into "mp", because OpenMP settings
must be in the environment before the worker's process starts; set them before this class is used.
"""

import multiprocessing

from vllm.v1.executor.uniproc_executor import UniProcExecutor


class CPUUniProcExecutor(UniProcExecutor):
    """vLLM's UniProcExecutor on a CPU: fewer imports at start, and no process that waits in a busy loop."""

    def _init_executor(self) -> None:
        # vLLM makes a named lock. Under fork its name is unlinked at once, and no lock stays after kill -9.
        multiprocessing.set_start_method("fork", force=True)
        super()._init_executor()
