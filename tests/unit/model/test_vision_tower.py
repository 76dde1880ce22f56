"""Towers: features of the last used block, without class token or final norm."""

import pytest
import torch

from medmoe.model.vision_tower import VisionTower
from tests.support.checkpoints.tiny import tiny_config


def tower(name: str, *, factor: int = 2) -> tuple[VisionTower, torch.Tensor]:
    config = tiny_config(tower=name, downsample_factor=factor).vision_config
    torch.manual_seed(0)
    built = VisionTower(config).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built, torch.randn(2, 3, config.image_size, config.image_size)


@pytest.mark.parametrize("name", ["dinov2", "clip", "siglip"])
def test_one_feature_a_patch(name: str) -> None:
    built, pixels = tower(name)
    assert built(pixels).shape == (2, 16, 32)


@pytest.mark.parametrize("name", ["dinov2", "clip", "siglip"])
def test_the_features_are_the_last_blocks_output_before_any_norm(name: str) -> None:
    built, pixels = tower(name)
    output = built.backbone(pixels, output_hidden_states=True)
    skipped = 0 if name == "siglip" else 1
    torch.testing.assert_close(built(pixels), output.hidden_states[-1][:, skipped:])


def test_siglip_can_leave_out_its_first_patch_as_upstream_does() -> None:
    whole, pixels = tower("siglip")
    cut, _ = tower("siglip", factor=1)
    torch.testing.assert_close(cut(pixels), whole(pixels)[:, 1:])


def test_pixels_that_no_siglip_patch_sees_change_nothing() -> None:
    built, pixels = tower("siglip")
    seen = built(pixels)
    pixels[..., 32:] = 9.0
    torch.testing.assert_close(built(pixels), seen)
