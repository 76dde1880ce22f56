"""What this machine cannot serve is known before vLLM is imported."""

import pytest

from medmoe.server.engine.deployment import check
from medmoe.server.engine.deployment.check import check_deployment
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("clean_environment")

NARROW = {"hidden_size": 80, "num_attention_heads": 1}


def test_experts_of_a_width_that_the_cpu_kernel_cannot_take_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "built_for_cpu", lambda: True)
    with pytest.raises(DeploymentError, match="hidden_size that is a multiple of 32, and this checkpoint's is 80"):
        check_deployment(Settings(), tiny_config(**NARROW))
    check_deployment(Settings(), tiny_config(**NARROW, moe_layers=()))
    check_deployment(Settings(), tiny_config())
