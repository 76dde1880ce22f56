"""Check that this machine can serve the checkpoint with these settings, before vLLM is imported."""

from medmoe.model.config import MedMoEConfig
from medmoe.server.engine.deployment.cpu_tuning import cpu_threads
from medmoe.server.engine.deployment.parallelism import check_parallelism
from medmoe.server.engine.deployment.quantization import check_quantization, cpu_kernel
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu
from medmoe.server.settings import Settings


def check_deployment(settings: Settings, config: MedMoEConfig) -> None:
    """Raise DeploymentError for what vLLM would refuse late or, worse, crash on."""
    on_cpu, text = built_for_cpu(), config.text_config
    check_parallelism(settings, text, on_cpu=on_cpu)
    check_quantization(settings, text, on_cpu=on_cpu, kernel=cpu_kernel() if on_cpu else None)
    cpu_threads(settings)
