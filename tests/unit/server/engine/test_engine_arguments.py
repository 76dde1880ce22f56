"""What the settings leave open is decided by checkpoint and machine."""

from pathlib import Path

import pytest

from medmoe.server.engine.deployment import engine_arguments as module
from medmoe.server.engine.deployment.engine_arguments import encoder_cache_embeddings, engine_arguments
from medmoe.server.engine.deployment.quantization import CpuKernel
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import tiny_config


@pytest.mark.parametrize(
    ("on_cpu", "kernel", "settings", "dtype"),
    [
        (True, None, {}, "float32"),
        (True, "zentorch", {}, "float32"),
        (True, "amx", {}, "bfloat16"),
        (True, "amx", {"dtype": "float32"}, "float32"),
        (True, None, {"dtype": "bfloat16"}, "bfloat16"),
        (True, "zentorch", {"quantization": "int8_per_channel"}, "bfloat16"),
        (False, "amx", {}, "float16"),
        (False, None, {"dtype": "float32"}, "float32"),
    ],
)
def test_number_format(
    on_cpu: bool, kernel: CpuKernel | None, settings: dict[str, str], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cpu_kernel", lambda: kernel)
    config = tiny_config().model_copy(update={"dtype": "float16"})
    arguments = engine_arguments(Settings(model=Path("somewhere"), **settings), config, on_cpu=on_cpu)
    assert arguments["dtype"] == dtype


@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("bfloat16", 2)])
def test_the_picture_cache_is_measured_in_memory(dtype: str, bytes_each: int) -> None:
    settings = Settings(model=Path("somewhere"), dtype=dtype, encoder_cache_mib=3)
    config = tiny_config()
    embeddings = encoder_cache_embeddings(settings, config, on_cpu=True)
    size = config.text_config.hidden_size * bytes_each
    assert embeddings * size <= 3 * 2**20 < (embeddings + 1) * size
