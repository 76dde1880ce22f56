"""The tower as a CPU serves it, against the same tower as transformers computes it. Needs no vLLM."""

import copy
import gc
import platform
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from medmoe.model.config import VisionConfig
from medmoe.model.vision_tower import VisionTower
from medmoe.model.vllm_plugin.cpu.vision_tower_cpu import AT_ONCE, pack_vision_tower, tower_features
from tests.support.checkpoints.tiny import tiny_config

TOWERS = ["dinov2", "clip", "siglip"]

applies = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),
    reason="not x86, or torch was built without oneDNN",
)
multiplies_bfloat16 = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN does not multiply bfloat16 on this processor",
)


def tower(name: str, dtype: torch.dtype = torch.float32) -> tuple[VisionTower, VisionConfig]:
    config = tiny_config(tower=name).vision_config
    torch.manual_seed(0)
    built = VisionTower(config).eval()
    # Biases and layer scales too, which are born as zeros and ones.
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.2)
    return built.to(dtype), config


def random_pixels(config: VisionConfig, number: int) -> torch.Tensor:
    return torch.randn(number, 3, config.image_size, config.image_size)


@applies
@pytest.mark.parametrize("number", [1, 3, AT_ONCE, 2 * AT_ONCE + 1])
@pytest.mark.parametrize("name", TOWERS)
def test_in_float32_it_says_the_same(name: str, number: int) -> None:
    built, config = tower(name)
    pixels = random_pixels(config, number)
    expected = built(pixels)
    assert pack_vision_tower(built, config)
    torch.testing.assert_close(tower_features(built, pixels), expected, rtol=1e-5, atol=1e-5)


@applies
@pytest.mark.parametrize("hidden_act", ["gelu", "quick_gelu", "gelu_pytorch_tanh"])
def test_every_activation_is_computed_as_named(hidden_act: str) -> None:
    # Large enough that the two GELUs, which differ by up to 5e-4, do not pass for each other.
    config = tower("clip")[1].model_copy(update={"hidden_act": hidden_act})
    torch.manual_seed(0)
    built = VisionTower(config).eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    pixels = random_pixels(config, 2)
    expected = built(pixels)
    assert pack_vision_tower(built, config)
    torch.testing.assert_close(built(pixels), expected, rtol=1e-5, atol=1e-5)


@applies
@multiplies_bfloat16
@pytest.mark.parametrize("name", TOWERS)
def test_in_bfloat16_it_is_as_near_to_the_truth(name: str) -> None:
    built, config = tower(name, torch.bfloat16)
    pixels = random_pixels(config, 2 * AT_ONCE + 1)
    truth = copy.deepcopy(built).float()(pixels)
    before = (built(pixels).float() - truth).norm()
    assert pack_vision_tower(built, config)
    told = tower_features(built, pixels)
    assert told.dtype == torch.bfloat16
    assert (told.float() - truth).norm() < 1.2 * before < 0.1 * truth.norm()


@applies
@pytest.mark.parametrize("name", TOWERS)
def test_the_linears_are_freed_and_what_stays_keeps_its_name(name: str) -> None:
    built, config = tower(name)
    before = {key for key, _ in built.named_parameters()}
    linears = [weakref.ref(module.weight) for module in built.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 6 * config.num_hidden_layers
    assert pack_vision_tower(built, config)
    gc.collect()
    assert not [linear for linear in linears if linear() is not None]
    after = {key for key, _ in built.named_parameters()}
    # vLLM refuses a model with a parameter that was not in the checkpoint.
    assert after < before
    assert any("norm1" in key for key in after)


def _as_float16(built: VisionTower, _: pytest.MonkeyPatch) -> nn.Module:
    return built.half()


def _elsewhere(built: VisionTower, _: pytest.MonkeyPatch) -> nn.Module:
    return built.to("meta")


def _on_arm(built: VisionTower, patch: pytest.MonkeyPatch) -> nn.Module:
    patch.setattr(platform, "machine", lambda: "aarch64")
    return built


def _without_onednn(built: VisionTower, patch: pytest.MonkeyPatch) -> nn.Module:
    patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    return built


def _without_bfloat16(built: VisionTower, patch: pytest.MonkeyPatch) -> nn.Module:
    patch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return built.bfloat16()


def _in_a_placeholder(built: VisionTower, _: pytest.MonkeyPatch) -> nn.Module:
    return nn.ModuleDict({"module": built})


@pytest.mark.parametrize(
    "change", [_as_float16, _elsewhere, _on_arm, _without_onednn, _without_bfloat16, _in_a_placeholder]
)
@pytest.mark.parametrize("name", TOWERS)
def test_where_it_is_not_known_to_be_right_the_tower_stays_as_it_was(
    name: str, change: Callable[[VisionTower, pytest.MonkeyPatch], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, config = tower(name)
    changed = change(built, monkeypatch)
    modules, parameters = list(changed.modules()), list(changed.parameters())
    assert not pack_vision_tower(changed, config)
    assert all(now is then for now, then in zip(changed.modules(), modules, strict=True))
    assert all(now is then for now, then in zip(changed.parameters(), parameters, strict=True))


def test_only_a_cpu_looks_at_a_few_images_at_a_time() -> None:
    seen: list[int] = []

    class Watched(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(len(pixels))
            return pixels

    pixels = torch.randn(2 * AT_ONCE + 1, 1)
    assert torch.equal(tower_features(Watched(), pixels), pixels)
    tower_features(Watched(), pixels.to("meta"))
    assert seen == [AT_ONCE, AT_ONCE, 1, 2 * AT_ONCE + 1]
