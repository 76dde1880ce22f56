"""The serving engine's model and settings, with the worker in this very process: a further engine costs seconds.

vLLM changes the process it runs in (threads, signals, distributed state): use it in one of your own.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.engine.deployment.engine_arguments import engine_arguments
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu, prepare_environment
from medmoe.server.settings import Settings

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput


class LocalEngine:
    """Prompts in, vLLM's own outputs out."""

    def __init__(self, llm: "LLM") -> None:
        self.llm = llm

    def generate(self, prompts: list[dict[str, Any]], **sampling: Any) -> "list[RequestOutput]":
        """All prompts at once; `sampling` is what vLLM's SamplingParams take."""
        from vllm import SamplingParams

        return self.llm.generate(prompts, SamplingParams(**sampling), use_tqdm=False)

    def close(self) -> None:
        self.llm.llm_engine.engine_core.shutdown()


@contextmanager
def local_engine(directory: Path, *, dtype: Dtype = "float32", **arguments: Any) -> Iterator[LocalEngine]:
    """An engine with the checkpoint of `directory`; `arguments` are further ones of vLLM's."""
    settings = Settings(model=directory, dtype=dtype)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    prepare_environment(settings, dtype=dtype)

    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    shape = engine_arguments(settings, MedMoEConfig.from_directory(directory), on_cpu=built_for_cpu())
    engine = LocalEngine(LLM(**shape | {"distributed_executor_backend": "uni", "disable_log_stats": True} | arguments))
    try:
        yield engine
    finally:
        engine.close()
        del engine
        cleanup_dist_env_and_memory()
