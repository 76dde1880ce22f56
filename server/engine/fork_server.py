"""A process that has imported what an engine's process needs, and becomes one by forking.

Nearly all of an engine's start is imports: here they run beside this process's own, on another core, and once for all
engines, so that one that has died is replaced within seconds. It has no threads when it forks and computes nothing
itself.
"""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from medmoe.server.engine.deployment.cpu_tuning import in_one_process
from medmoe.server.settings import Settings

_IMPORTED = [
    "medmoe.model.vllm_plugin.process.preload",
    # What every child imports anew otherwise: the module that the service was started from.
    "medmoe.server.app",
    "uvicorn",
]
"""A name that cannot be imported is passed over: an engine's start then takes longer, and says itself what is wrong."""


def begin_importing(settings: Settings) -> BaseContext | None:
    """Returns at once; where one-process engines are to come from, None where engines are to be vLLM's own business.

    Whatever engines are to find in their environment must be there now. As multiprocessing's own server, it ends with
    this process, and is started again when it has been killed.
    """
    if not in_one_process(settings):
        # vLLM's workers have OpenMP settings of their own each, and CUDA does not survive a fork.
        return None
    forkserver.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")
