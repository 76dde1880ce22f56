"""vLLM's scheduler and its one worker in one process, also on a CPU.

Named as a class in the engine's arguments: vLLM's CPU platform turns its own "uni" into "mp", because a worker's OpenMP
settings have to be in the environment before its process starts. Whoever names this class has put them there
(medmoe.server.engine.deployment.cpu_tuning).
"""

import multiprocessing

from vllm.v1.executor.uniproc_executor import UniProcExecutor


class CPUUniProcExecutor(UniProcExecutor):
    """A third of the imports at start, and no process that waits for the other by yielding in a loop."""

    def _init_executor(self) -> None:
        # vLLM makes a lock that nobody shares: of this kind its name is gone at once, and nothing stays after kill -9.
        multiprocessing.set_start_method("fork", force=True)
        super()._init_executor()
