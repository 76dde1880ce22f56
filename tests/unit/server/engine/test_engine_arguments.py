"""What the settings leave open is decided by checkpoint and machine."""

from pathlib import Path
from typing import Any

import pytest

from medmoe.server.engine.deployment import number_format
from medmoe.server.engine.deployment.engine_arguments import encoder_cache_embeddings, engine_arguments
from medmoe.server.engine.deployment.number_format import has_native_bfloat16
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config


@pytest.mark.parametrize(
    ("on_cpu", "native", "settings", "dtype"),
    [
        (True, False, {}, "float32"),
        (True, True, {}, "bfloat16"),
        (True, True, {"dtype": "float32"}, "float32"),
        (True, False, {"dtype": "bfloat16"}, "bfloat16"),
        (True, False, {"quantization": "int8_per_channel"}, "bfloat16"),
        (False, True, {}, "float16"),
        (False, False, {"dtype": "float32"}, "float32"),
    ],
)
def test_number_format(
    on_cpu: bool, native: bool, settings: dict[str, str], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_format, "has_native_bfloat16", lambda: native)
    config = tiny_config().model_copy(update={"dtype": "float16"})
    arguments = engine_arguments(Settings(model=Path("somewhere"), **settings), config, on_cpu=on_cpu)
    assert arguments["dtype"] == dtype


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("flags\t\t: avx512f avx512_bf16 vaes", True),
        ("flags\t\t: avx512f amx_bf16 amx_tile", True),
        ("Features\t: fp asimd sve bf16 i8mm", True),
        ("flags\t\t: avx512f avx512_vnni", False),
        ("model name\t: bf16 in a name", False),
    ],
)
def test_which_processors_multiply_bfloat16(flags: str, native: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\n")
    assert has_native_bfloat16(cpuinfo) is native
    assert not has_native_bfloat16(tmp_path / "absent")


def test_a_gpu_takes_as_many_tokens_a_step_as_vllm_serve() -> None:
    config = tiny_config()
    settings = Settings(model=Path("somewhere"))
    assert engine_arguments(settings, config, on_cpu=False)["max_num_batched_tokens"] == 8192
    long = config.model_copy(
        update={"text_config": config.text_config.model_copy(update={"max_position_embeddings": 16384})}
    )
    assert engine_arguments(settings, long, on_cpu=False)["max_num_batched_tokens"] == 16384


@pytest.mark.parametrize(
    ("quantization", "capability", "backend"),
    [
        ("none", (10, 0), "triton"),
        ("fp8_per_tensor", (9, 0), "triton"),
        ("fp8_per_tensor", (8, 0), "auto"),
        ("int8_per_channel", (8, 0), "triton"),
    ],
)
def test_a_gpu_computes_experts_with_the_kernel_that_is_tested(
    quantization: Any, capability: tuple[int, int], backend: str
) -> None:
    settings = Settings(model=Path("somewhere"), quantization=quantization)
    arguments = engine_arguments(settings, tiny_config(), on_cpu=False, capability=capability)
    assert arguments["moe_backend"] == backend
    assert "moe_backend" not in engine_arguments(Settings(model=Path("somewhere")), tiny_config(), on_cpu=True)


def test_memory_of_a_gpu_is_what_the_settings_say() -> None:
    config = tiny_config()
    arguments = engine_arguments(Settings(model=Path("somewhere")), config, on_cpu=False)
    assert (arguments["gpu_memory_utilization"], arguments["kv_cache_memory_bytes"]) == (0.92, None)
    settings = Settings(model=Path("somewhere"), gpu_memory_utilization=0.5, kv_cache_gib=2)
    arguments = engine_arguments(settings, config, on_cpu=False)
    assert (arguments["gpu_memory_utilization"], arguments["kv_cache_memory_bytes"]) == (0.5, 2 * 2**30)


@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("bfloat16", 2)])
def test_the_image_cache_is_measured_in_memory(dtype: str, bytes_each: int) -> None:
    settings = Settings(model=Path("somewhere"), dtype=dtype, encoder_cache_mib=3)
    config = tiny_config()
    embeddings = encoder_cache_embeddings(settings, config, on_cpu=True)
    size = config.text_config.hidden_size * bytes_each
    assert embeddings * size <= 3 * 2**20 < (embeddings + 1) * size
