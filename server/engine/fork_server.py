"""Start a fork server that has imported the modules of an engine's process.

Imports are nearly all of an engine's start. They run there once, beside the service's own, so that a dead engine is
replaced within seconds. The fork server has no threads when it forks.
"""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

from medmoe.server.engine.deployment.cpu_tuning import in_one_process
from medmoe.server.settings import Settings

_IMPORTED = [
    "medmoe.model.vllm_plugin.process.preload",
    # Otherwise every child imports the module that the service was started from.
    "medmoe.server.app",
    "uvicorn",
]
"""Modules to import; one that fails is skipped, and the engine's own start reports it."""


def begin_importing(settings: Settings) -> BaseContext | None:
    """Start the fork server without waiting; return its context for one-process engines, None for all others.

    Engines inherit the environment of this moment. The server ends with this process and is started again when it has
    been killed.
    """
    if not in_one_process(settings):
        # vLLM's workers have OpenMP settings of their own each, and CUDA does not survive a fork.
        return None
    forkserver.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")
