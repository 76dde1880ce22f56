"""What vLLM finds in its environment when it is imported."""

import os

import pytest

from medmoe.server.engine.deployment.vllm_environment import prepare_environment
from medmoe.server.settings import Settings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return a private copy of the environment, without what an engine in this process has set before."""
    set_before = {"TORCHDYNAMO_DISABLE", "TRITON_F32_DEFAULT", "VLLM_CPU_KVCACHE_SPACE"}
    copied = {name: value for name, value in os.environ.items() if name not in set_before}
    monkeypatch.setattr(os, "environ", copied)
    return copied


def test_a_cpu_needs_no_compiler(environment: dict[str, str]) -> None:
    """Where it would look for one: in the sampler, at the first answer with log-probabilities. An image has no g++."""
    environment["VLLM_TARGET_DEVICE"] = "cpu"
    prepare_environment(Settings(), dtype="bfloat16")
    assert environment["TORCHDYNAMO_DISABLE"] == "1"


def test_ranks_listen_on_this_machine_alone(environment: dict[str, str]) -> None:
    environment["GLOO_SOCKET_IFNAME"] = "eth0"
    prepare_environment(Settings(), dtype="bfloat16")
    assert environment["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_gpu_goes_on_compiling(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment.pop("VLLM_TARGET_DEVICE", None)
    monkeypatch.setattr("medmoe.server.engine.deployment.vllm_environment.version", lambda _: "0.30.0")
    prepare_environment(Settings(), dtype="bfloat16")
    assert "TORCHDYNAMO_DISABLE" not in environment
    assert "TRITON_F32_DEFAULT" not in environment


def test_float32_is_not_computed_in_tf32(environment: dict[str, str]) -> None:
    prepare_environment(Settings(), dtype="float32")
    assert environment["TRITON_F32_DEFAULT"] == "ieee"


@pytest.mark.parametrize(("gib", "space"), [(None, "1"), (3, "3")])
def test_a_cpu_has_a_key_value_cache_of_the_size_set(environment: dict[str, str], gib: int | None, space: str) -> None:
    prepare_environment(Settings(kv_cache_gib=gib), dtype="float32")
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == space
