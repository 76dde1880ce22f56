"""What vLLM finds in its environment when it is imported."""

import os

import pytest

from medmoe.server.engine.deployment.vllm_environment import prepare_environment
from medmoe.server.settings import Settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy that nobody else sees, without what decides here."""
    copied = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    monkeypatch.setattr(os, "environ", copied)
    return copied


def test_a_cpu_needs_no_compiler(environment: dict[str, str]) -> None:
    """Where it would look for one: in the sampler, at the first answer with log-probabilities. An image has no g++."""
    environment["VLLM_TARGET_DEVICE"] = "cpu"
    prepare_environment(Settings())
    assert environment["TORCHDYNAMO_DISABLE"] == "1"


def test_a_gpu_goes_on_compiling(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment.pop("VLLM_TARGET_DEVICE", None)
    monkeypatch.setattr("medmoe.server.engine.deployment.vllm_environment.version", lambda _: "0.30.0")
    prepare_environment(Settings())
    assert "TORCHDYNAMO_DISABLE" not in environment
