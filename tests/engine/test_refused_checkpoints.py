"""A checkpoint that does not fit is refused with the reason, before vLLM has started any process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.weight_files import WEIGHTS_FILE
from medmoe.server.engine.base import EngineError
from medmoe.server.engine.vllm_engine import VllmEngine
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import save_tiny_checkpoint

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

EXPERT = "language_model.model.layers.2.mlp.experts.1.up_proj.weight"


def renamed(directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS_FILE)
    tensors["x"] = tensors.pop(EXPERT)
    save_file(tensors, directory / WEIGHTS_FILE)


def misshapen(directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS_FILE)
    tensors[EXPERT] = tensors[EXPERT][:-1].clone()
    save_file(tensors, directory / WEIGHTS_FILE)


def truncated(directory: Path) -> None:
    path = directory / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1])


def half_an_adapter(directory: Path) -> None:
    (directory / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (renamed, rf"missing: {EXPERT}; unknown: x"),
        (misshapen, rf"misshapen: {EXPERT} is \(127, 64\), expected \(128, 64\)"),
        (truncated, r"model\.safetensors cannot be read as safetensors"),
        (half_an_adapter, "adapter_config.json without the other adapter file"),
    ],
    ids=["renamed", "misshapen", "truncated", "half an adapter"],
)
async def test_the_reason_is_named(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    damage(checkpoint)
    engine = VllmEngine(Settings(model=checkpoint), MedMoEConfig.from_directory(checkpoint))
    with pytest.raises(EngineError, match=reason):
        await engine.start()
