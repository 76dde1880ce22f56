"""Check that this machine can serve the checkpoint with these settings, before vLLM is imported."""

from medmoe.model.config import MedMoEConfig
from medmoe.server.engine.deployment.cpu_tuning import cpu_threads
from medmoe.server.engine.deployment.parallelism import check_parallelism
from medmoe.server.engine.deployment.quantization import check_quantization, cpu_kernel
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings

_CPU_EXPERT_ROWS = 32
"""vLLM's CPU kernel writes so many of an expert's outputs at once, and pads its inner width alone."""


def check_deployment(settings: Settings, config: MedMoEConfig) -> None:
    """Raise DeploymentError for what vLLM would refuse late or, worse, crash on."""
    on_cpu, text = built_for_cpu(), config.text_config
    check_parallelism(settings, text, on_cpu=on_cpu)
    check_quantization(settings, text, on_cpu=on_cpu, kernel=cpu_kernel() if on_cpu else None)
    if on_cpu and text.moe_layers and text.hidden_size % _CPU_EXPERT_ROWS:
        raise DeploymentError(
            f"experts are served on CPU for a hidden_size that is a multiple of {_CPU_EXPERT_ROWS}, and this"
            f" checkpoint's is {text.hidden_size}; train one with another hidden_size"
        )
    cpu_threads(settings)
