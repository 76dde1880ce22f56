"""Drive vLLM's AsyncLLM behind the Engine protocol.

Its HTTP app is never mounted. Its exceptions are translated here, and nothing that a client sent reaches its logs.
"""

import asyncio
import gc
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.model.prompt import expand
from medmoe.model.unlike_training.score_pipe import SCORE_PIPE
from medmoe.server.engine.base import EngineDeadError, EngineError, GenerationChunk, GenerationError, GenerationRequest
from medmoe.server.engine.build_thread import BuildThread
from medmoe.server.engine.completion import OutputReader, sampling_arguments
from medmoe.server.engine.deployment.check import check_deployment
from medmoe.server.engine.deployment.cpu_tuning import ONE_PROCESS, tune
from medmoe.server.engine.deployment.engine_arguments import branch_tokens, encoder_cache_embeddings, engine_arguments
from medmoe.server.engine.deployment.number_format import engine_dtype
from medmoe.server.engine.deployment.quantization import Capability, check_accelerator
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu, prepare_environment
from medmoe.server.engine.engine_directory import EngineDirectory
from medmoe.server.engine.engine_metrics import EngineSeries
from medmoe.server.engine.fork_server import begin_importing
from medmoe.server.engine.process_tree import ProcessTree
from medmoe.server.engine.scoring.branch_scorer import BranchScorer
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.inputs.engine import MultiModalInput
    from vllm.multimodal.inputs import MultiModalKwargsItems
    from vllm.platforms.interface import Platform
    from vllm.v1.engine.async_llm import AsyncLLM


class VllmEngine:
    """Implement Engine with one AsyncLLM, whose engine core and workers are processes of their own."""

    def __init__(self, settings: Settings, config: MedMoEConfig) -> None:
        """Raise DeploymentError when the checkpoint or the machine cannot give what the settings ask for."""
        check_deployment(settings, config)
        self.dtype: Dtype = engine_dtype(settings, config, on_cpu=built_for_cpu())
        self._settings = settings
        self._config = config
        self._image_inputs = _ImageInputs()
        self._branches = BranchScorer(config, most_tokens=branch_tokens(settings, config, on_cpu=built_for_cpu()))
        self._llm: AsyncLLM | None = None
        self._building: BuildThread[AsyncLLM] | None = None
        self._processes: ProcessTree | None = None
        self._closed = False
        self._directory: EngineDirectory | None = None
        self._series = EngineSeries()

    async def start(self) -> None:
        """Import vLLM and load the model in a thread, so that liveness is answered meanwhile. Raises EngineError."""
        prepare_environment(self._settings, dtype=self.dtype)
        tune(self._settings)
        self._directory = EngineDirectory()
        self._building = BuildThread(self._build)
        try:
            llm = await self._building.result()
            self._llm, self._building = llm, None
            self._processes = await asyncio.to_thread(_processes, llm)
        except DeploymentError:
            raise
        except Exception as error:
            # No client has been heard yet, so the reason can be told whole.
            raise EngineError(f"the engine did not start: {type(error).__name__}: {error}") from error

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See Engine.generate."""
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDead

        outputs = self._running().generate(
            self._engine_input(request), self._sampling_params(request), request_id=request.request_id
        )
        reader = OutputReader(request)
        try:
            async for output in outputs:
                chunk = reader.chunk(output)
                if chunk.finish_reason is not None:
                    chunk = await self._with_scores(chunk, request)
                yield chunk
                if chunk.stopped:
                    return
        except VllmDead as error:
            raise EngineDeadError("the engine process has ended") from error
        except EngineDeadError:
            raise
        except Exception as error:
            raise GenerationError(type(error).__name__) from error
        finally:
            # Closing vLLM's generator is what aborts the request in the engine.
            await outputs.aclose()

    async def _with_scores(self, last: GenerationChunk, request: GenerationRequest) -> GenerationChunk:
        """Return the last chunk with the image's score and those of the request's branches."""
        branches = last.branches
        if request.branches:
            call = self._running().collective_rpc
            branches = await self._branches.score(request, call=call, check_health=self.check_health)
        score = self._directory.scores.score(request.image_id) if self._directory else None
        return replace(last, branches=branches, unlike_training=score)

    def scores_branches(self, request: GenerationRequest) -> bool:
        """See Engine.scores_branches."""
        return self._branches.pays(request)

    async def check_health(self) -> None:
        """See Engine.check_health."""
        from vllm.v1.engine.exceptions import EngineDeadError as VllmDead

        try:
            await self._running().check_health()
        except VllmDead as error:
            raise EngineDeadError("the engine process has ended") from error
        if self._processes is not None and not self._processes.is_whole():
            raise EngineDeadError("the engine process has ended")

    async def ping(self) -> None:
        """See Engine.ping. vLLM's scheduler passes it on to all workers between two steps."""
        await self._running().collective_rpc("check_health")

    async def kill(self) -> None:
        """See Engine.kill."""
        if self._llm is not None:
            _tell_waiting(self._llm)
        if self._processes is not None:
            await asyncio.to_thread(self._processes.kill)

    async def close(self) -> None:
        """See Engine.close."""
        self._closed = True
        building, self._building = self._building, None
        if building is not None:
            self._llm = await building.abandon()
        llm, self._llm = self._llm, None
        processes, self._processes = self._processes, None
        directory, self._directory = self._directory, None
        if llm is not None:
            _tell_waiting(llm)
            await asyncio.to_thread(_shut_down, llm)
            # And those that were on their way in.
            _tell_waiting(llm)
            del llm
            # Its sockets' context and tokenizer hang in cycles, which nothing else breaks before the next engine's.
            await asyncio.to_thread(gc.collect)
        if processes is not None:
            await asyncio.to_thread(processes.clear)
        if directory is not None:
            directory.remove()

    def metrics(self) -> bytes:
        """Return vLLM's own series, `vllm:*`; empty until the engine runs."""
        return b"" if self._llm is None else self._series.exposition()

    def _running(self) -> "AsyncLLM":
        if self._llm is None:
            raise EngineDeadError("the engine is not running")
        return self._llm

    def _build(self) -> "AsyncLLM":
        # The engine's processes inherit this: a terminal's signals reach them too, and must not end them before us.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
        forking = begin_importing(self._settings)

        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine import utils
        from vllm.v1.engine.async_llm import AsyncLLM

        on_cpu = bool(current_platform.is_cpu())
        capability = None if on_cpu else _capability(current_platform)
        if capability is not None:
            check_accelerator(self._settings, self._config.text_config, dtype=self.dtype, capability=capability)
        if forking is not None:
            # vLLM has no setting for this: it knows fork and spawn.
            utils.get_mp_context = lambda: forking
        shape = engine_arguments(self._settings, self._config, on_cpu=on_cpu, capability=capability)
        arguments = AsyncEngineArgs(
            **shape,
            distributed_executor_backend=None if forking is None else ONE_PROCESS,
            enable_log_requests=False,
            use_tqdm_on_load=False,
            shutdown_timeout=round(self._settings.drain_seconds),
            additional_config={SCORE_PIPE: str(self._directory.scores.path)} if self._directory else {},
        )
        made = arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
        # vLLM has no setting for this either, and makes it one step's worth: 32 of the bundled checkpoint's images.
        wanted = encoder_cache_embeddings(self._settings, self._config, on_cpu=on_cpu)
        made.scheduler_config.encoder_cache_size = max(made.scheduler_config.encoder_cache_size, wanted)
        if self._closed:
            raise EngineError("the engine was closed while it was built")
        llm = AsyncLLM.from_vllm_config(made)
        self._series.take()
        return llm

    def _engine_input(self, request: GenerationRequest) -> "MultiModalInput":
        """Return the input that vLLM's renderer would make, without its thread and its search for the placeholder."""
        from vllm.inputs.engine import mm_input
        from vllm.multimodal.inputs import PlaceholderRange

        config, ids = self._config, request.prompt_ids
        place = PlaceholderRange(offset=ids.index(config.image_token_id), length=config.num_image_tokens)
        return mm_input(
            expand(ids, config),
            self._image_inputs(request),
            {"image": [request.image_key]},
            {"image": [place]},
            cache_salt=request.cache_salt,
        )

    def _sampling_params(self, request: GenerationRequest) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            **sampling_arguments(request, eos_token_id=self._config.text_config.eos_token_id),
            # Not DELTA: when a reader lags, vLLM merges deltas and loses the routing on the way.
            output_kind=RequestOutputKind.FINAL_ONLY if request.whole else RequestOutputKind.CUMULATIVE,
        )


class _ImageInputs:
    """Make vLLM's multi-modal inputs and keep the latest: a classification sends one image with each request."""

    _KEPT = 32
    """Images; 0.15 MB each at 224 pixels."""

    def __init__(self) -> None:
        self._kept: LRUCache[str, MultiModalKwargsItems] = LRUCache(self._KEPT)

    def __call__(self, request: GenerationRequest) -> "MultiModalKwargsItems":
        made = self._kept.get(request.image_id)
        if made is None:
            made = self._kept[request.image_id] = self._made(request.image, request.image_id)
        return made

    def _made(self, image: np.ndarray, image_id: str) -> "MultiModalKwargsItems":
        import torch
        from vllm.multimodal.inputs import (
            MultiModalBatchedField,
            MultiModalFieldElem,
            MultiModalKwargsItem,
            MultiModalKwargsItems,
        )

        field = MultiModalBatchedField()
        identity = torch.tensor(list(bytes.fromhex(image_id)), dtype=torch.uint8)
        tensors = {"pixel_values": torch.from_numpy(image.transpose(2, 0, 1).copy()), "image_id": identity}
        elements = {name: MultiModalFieldElem(data=data, field=field) for name, data in tensors.items()}
        return MultiModalKwargsItems({"image": [MultiModalKwargsItem(elements)]})


def _capability(platform: "Platform") -> Capability:
    found = platform.get_device_capability()
    if found is None:
        raise DeploymentError(
            "vLLM sees no GPU: start the container with --gpus all, check that nvidia-smi lists one, or install the"
            " build for CPUs (make install)"
        )
    return found.major, found.minor


def _processes(llm: "AsyncLLM") -> ProcessTree:
    # Not public, and pinned with vLLM's version: what to wait for, and what to kill, when the engine is gone.
    manager = llm.engine_core.resources.engine_manager
    return ProcessTree(process.pid for process in manager.processes)


def _tell_waiting(llm: "AsyncLLM") -> None:
    """Fail all waiting generations: shutting down ends the task that would have done it."""
    from vllm.v1.engine.exceptions import EngineDeadError as VllmDead

    llm.output_processor.propagate_error(VllmDead())


def _shut_down(llm: "AsyncLLM") -> None:
    llm.shutdown()
    # vLLM's destructor shuts down once more, when half of the interpreter is already gone, and complains.
    llm.shutdown = _already_shut_down


def _already_shut_down(timeout: float | None = None) -> None:
    """Do nothing in place of the second shutdown."""
