"""Where experts can be held in fewer bits, decided without vLLM."""

from pathlib import Path
from typing import Any

import pytest

from medmoe.server.engine.deployment import quantization
from medmoe.server.engine.deployment.quantization import (
    CpuKernel,
    check_accelerator,
    check_quantization,
    cpu_kernel,
    quantization_arguments,
)
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("clean_environment")

TOP_2 = {"num_experts_per_tok": 2, "renormalize": True}


def check(shape: dict[str, Any], *, on_cpu: bool, kernel: CpuKernel | None = None, **settings: Any) -> None:
    check_quantization(Settings(**settings), tiny_config(**shape).text_config, on_cpu=on_cpu, kernel=kernel)


def test_nothing_is_said_to_the_engine_unless_asked() -> None:
    assert quantization_arguments(Settings()) == {}


@pytest.mark.parametrize("name", ["int8_per_channel", "fp8_per_tensor", "fp8_per_channel", "fp8_per_block"])
def test_only_experts_are_quantised(name: Any) -> None:
    arguments = quantization_arguments(Settings(quantization=name))
    assert arguments["quantization"] == "online"
    assert list(arguments["quantization_config"]) == ["moe"]


@pytest.mark.parametrize("backbone", ["llama", "stablelm", "phi"])
@pytest.mark.parametrize("name", ["int8_per_channel", "fp8_per_tensor", "fp8_per_channel", "fp8_per_block"])
def test_gpus_take_every_format_and_backbone(name: str, backbone: str) -> None:
    check({"model_type": backbone}, on_cpu=False, quantization=name)


@pytest.mark.parametrize(
    ("shape", "kernel"), [(TOP_2, "zentorch"), ({}, "amx"), (TOP_2 | {"model_type": "stablelm"}, "amx")]
)
def test_cpus_with_a_kernel_take_int8(shape: dict[str, Any], kernel: CpuKernel) -> None:
    check(shape, on_cpu=True, kernel=kernel, quantization="int8_per_channel")


@pytest.mark.parametrize(
    ("shape", "kernel", "settings", "reason"),
    [
        (TOP_2, "zentorch", {"quantization": "fp8_per_tensor"}, "needs a GPU; on CPU only int8_per_channel"),
        (TOP_2, None, {}, "needs a processor with Intel's AMX tiles or.* package zentorch"),
        (TOP_2, "zentorch", {"dtype": "float32"}, "MEDMOE_DTYPE is float32; use MEDMOE_DTYPE=bfloat16 or auto"),
        (TOP_2, "zentorch", {"dtype": "float16"}, "MEDMOE_DTYPE=bfloat16 or auto, not float16"),
        (TOP_2 | {"model_type": "phi"}, "zentorch", {}, "those of phi are not"),
        (TOP_2 | {"moe_layers": ()}, "zentorch", {}, "this checkpoint has none"),
        ({"intermediate_size": 96}, "amx", {"tensor_parallel_size": 2}, "multiples of 32, not 64 and 48"),
    ],
)
def test_what_has_no_kernel_on_cpu_is_refused_with_the_reason(
    shape: dict[str, Any], kernel: CpuKernel | None, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DeploymentError, match=reason) as refusal:
        check(shape, on_cpu=True, kernel=kernel, **({"quantization": "int8_per_channel"} | settings))
    assert "MEDMOE_QUANTIZATION=" in str(refusal.value)


def test_a_package_that_would_crash_the_engine_is_refused_without_quantisation_too() -> None:
    check(TOP_2, on_cpu=True, kernel="zentorch")
    check({"moe_layers": ()}, on_cpu=True, kernel="zentorch")
    with pytest.raises(DeploymentError, match=r"zentorch cannot serve this checkpoint.* uninstall it"):
        check({}, on_cpu=True, kernel="zentorch")


@pytest.mark.parametrize("name", ["fp8_per_tensor", "fp8_per_channel", "fp8_per_block"])
def test_biased_experts_in_fp8_need_a_gpu_that_has_it(name: Any) -> None:
    settings = Settings(quantization=name)
    phi = tiny_config(model_type="phi").text_config
    check_accelerator(settings, phi, dtype="bfloat16", capability=(8, 9))
    check_accelerator(Settings(quantization="int8_per_channel"), phi, dtype="bfloat16", capability=(8, 6))
    with pytest.raises(DeploymentError, match=r"compute capability 8\.9 or later, not 8\.6.*use int8_per_channel"):
        check_accelerator(settings, phi, dtype="bfloat16", capability=(8, 6))


def test_fp8_by_channel_has_no_kernel_on_older_gpus() -> None:
    llama = tiny_config(model_type="llama").text_config
    settings = Settings(quantization="fp8_per_channel")
    check_accelerator(settings, llama, dtype="bfloat16", capability=(9, 0))
    check_accelerator(Settings(quantization="fp8_per_tensor"), llama, dtype="bfloat16", capability=(8, 0))
    with pytest.raises(DeploymentError, match=r"needs a GPU.*not 8\.0.*use fp8_per_tensor, fp8_per_block"):
        check_accelerator(settings, llama, dtype="bfloat16", capability=(8, 0))


@pytest.mark.parametrize(
    ("capability", "fits"),
    [((7, 5), False), ((8, 0), True), ((8, 6), False), ((8, 9), False), ((9, 0), True), ((12, 0), False)],
)
def test_float32_experts_need_shared_memory(capability: tuple[int, int], fits: bool) -> None:
    llama = tiny_config(model_type="llama").text_config
    dense = llama.model_copy(update={"moe_layers": ()})
    check_accelerator(Settings(), dense, dtype="float32", capability=capability)
    check_accelerator(Settings(), llama, dtype="bfloat16", capability=capability)
    if fits:
        check_accelerator(Settings(), llama, dtype="float32", capability=capability)
        return
    with pytest.raises(DeploymentError, match=r"do not fit in the shared memory.*use MEDMOE_DTYPE=bfloat16"):
        check_accelerator(Settings(), llama, dtype="float32", capability=capability)


@pytest.mark.parametrize(
    ("cpuinfo", "installed", "expected"),
    [
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512f avx512_bf16\n", True, "zentorch"),
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512f avx512_bf16\n", False, None),
        ("vendor_id : AuthenticAMD\nflags : avx2\n", True, None),
        ("vendor_id : GenuineIntel\nflags : avx512f amx_bf16 amx_tile amx_int8\n", True, "amx"),
        ("vendor_id : GenuineIntel\nflags : avx512f\n", True, None),
    ],
)
def test_the_processor_and_the_packages_tell_the_kernel(
    cpuinfo: str, installed: bool, expected: CpuKernel | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: object() if installed else None)
    assert cpu_kernel(tmp_path / "cpuinfo") == expected
    assert cpu_kernel(tmp_path / "missing") is None
