"""vLLM's GPU worker with its tensors on the CPU. Importing it turns the process into the pretended GPU machine."""

from types import SimpleNamespace

from tests.gpu_path import host_cuda, nvml, operators

nvml.install()

import torch  # noqa: E402

torch.cuda.is_available = lambda: True
operators.define()

import vllm  # noqa: E402, F401, TID251  (its environment comes first)
import vllm.utils.torch_utils as torch_utils  # noqa: E402, TID251
from vllm.platforms import current_platform  # noqa: E402, TID251

_PLATFORM = type(current_platform)
assert _PLATFORM.__name__ == "NvmlCudaPlatform", _PLATFORM
_PLATFORM.dispatch_key = "CPU"
_PLATFORM.device_type = "cpu"
_PLATFORM.current_stream = lambda *_: host_cuda.STREAM
for _name, _value in {
    "is_pin_memory_available": False,
    "is_arch_support_pdl": False,
    "num_compute_units": 4,
    "set_device": None,
    "manual_seed_all": None,
    "get_device_communicator_cls": (
        "vllm.distributed.device_communicators.base_device_communicator.DeviceCommunicatorBase"
    ),
}.items():
    setattr(_PLATFORM, _name, classmethod(lambda _cls, *_, _value=_value, **__: _value))
operators.implement()
host_cuda.install()
torch_utils.PIN_MEMORY = False
torch_utils.current_stream = lambda: host_cuda.STREAM
torch_utils.get_accelerator_view_from_cpu_tensor = lambda tensor: tensor

from vllm.v1.worker import gpu_worker  # noqa: E402, TID251
from vllm.v1.worker.gpu.model_runner import GPUModelRunner  # noqa: E402, TID251
from vllm.v1.worker.worker_base import CompilationTimes  # noqa: E402, TID251
from vllm.v1.worker.workspace import init_workspace_manager  # noqa: E402, TID251

_MEMORY = 64 << 30


class HostWorker(gpu_worker.Worker):
    """vLLM's own worker but for the device, which is the CPU, and the warm-up, which captures graphs."""

    def init_device(self) -> None:
        self.device = torch.device("cpu")
        gpu_worker.init_worker_distributed_environment(
            self.vllm_config, self.rank, self.distributed_init_method, self.local_rank, "gloo"
        )
        gpu_worker.set_random_seed(self.model_config.seed)
        self.init_snapshot = SimpleNamespace(free_memory=_MEMORY, total_memory=_MEMORY)
        self.requested_memory = 1 << 30
        lanes = gpu_worker._num_workspace_lanes(self.vllm_config, self.use_v2_model_runner)
        init_workspace_manager(self.device, 1, lanes)
        assert self.use_v2_model_runner
        self.model_runner = GPUModelRunner(self.vllm_config, self.device)

    def compile_or_warm_up_model(self) -> CompilationTimes:
        return CompilationTimes(0.0, 0.0)
