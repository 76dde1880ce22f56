"""What happens to an image before the tower sees it."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from medmoe.model.config import ImageProcessorConfig
from medmoe.model.image_processor import ImageProcessor, normalise, to_rgb

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "background": (10, 20, 30)}


def processor(mode: str = "pad", size: int = 8) -> ImageProcessor:
    return ImageProcessor(ImageProcessorConfig.model_validate(PLAIN | {"mode": mode}), size=size)


def test_pad_keeps_the_whole_image_on_a_square_of_background() -> None:
    resized = np.asarray(processor().resize(Image.new("RGB", (8, 4), (200, 0, 0))))
    assert resized.shape == (8, 8, 3)
    assert resized[0].tolist() == [[10, 20, 30]] * 8
    assert resized[7].tolist() == [[10, 20, 30]] * 8
    assert resized[2:6].tolist() == [[[200, 0, 0]] * 8] * 4


def test_crop_keeps_the_centre_square() -> None:
    image = Image.new("RGB", (24, 8), (0, 0, 0))
    image.paste((255, 255, 255), (8, 0, 16, 8))
    assert np.asarray(processor("crop").resize(image)).min() == 255


@pytest.mark.parametrize("size", [(98, 49), (49, 147), (335, 160), (588, 343), (300, 200), (1, 50), (40, 64)])
@pytest.mark.parametrize("side", [32, 224])
def test_a_crop_is_the_one_of_clips_processor(size: tuple[int, int], side: int) -> None:
    width, height = size
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    clip = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    expected = clip(noise, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(processor("crop", side).pixels(noise), expected)


@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("size", [(64, 64), (64, 40), (40, 64), (200, 60), (90, 70)])
def test_a_placement_tells_which_part_of_the_image_lies_where(mode: str, size: tuple[int, int]) -> None:
    """The colours of a pixel tell its place in the image."""
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.linspace(50, 250, width)[None, :]
    ramp[..., 1] = np.linspace(50, 250, height)[:, None]
    ramp[..., 2] = 255
    fitted = np.asarray(processor(mode, 32).resize(Image.fromarray(ramp))).astype(float)
    found = processor(mode, 32).placement(size)
    left, top, right, bottom = found.content
    inside = np.zeros((32, 32), bool)
    inside[top:bottom, left:right] = True
    assert (np.abs(fitted[~inside] - PLAIN["background"]).max(initial=0)) < 130
    assert fitted[inside][:, 2].min() > 120
    for axis, low, high, length in (
        (0, found.seen[0], found.seen[2], width),
        (1, found.seen[1], found.seen[3], height),
    ):
        if length < 32:
            continue
        line = fitted[(top + bottom) // 2, left:right, 0] if axis == 0 else fitted[top:bottom, (left + right) // 2, 1]
        middles = low + (np.arange(len(line)) + 0.5) / len(line) * (high - low)
        assert np.abs((line - 50) / 200 - middles)[2:-2].max(initial=0) < 0.05


@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 9), (300, 200)])
def test_every_shape_becomes_the_models_size(mode: str, size: tuple[int, int]) -> None:
    assert processor(mode)(Image.new("RGB", size)).shape == (3, 8, 8)


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_resizing_twice_changes_nothing(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    once = processor(mode).resize(noise)
    np.testing.assert_array_equal(np.asarray(processor(mode).resize(once)), np.asarray(once))
    np.testing.assert_array_equal(processor(mode)(once), processor(mode)(noise))


def test_torch_normalises_bytes_to_the_same_numbers() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    config = ImageProcessorConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), background=(0, 0, 0))
    processor = ImageProcessor(config, size=32)
    pixels = torch.from_numpy(processor.pixels(noise).copy()).float()
    mean, std = (pixels.new_tensor(numbers)[:, None, None] for numbers in (config.mean, config.std))
    normalise(pixels, mean=mean, std=std)
    np.testing.assert_array_equal(pixels.numpy(), processor(noise))


def test_normalisation_is_per_channel() -> None:
    config = ImageProcessorConfig(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), background=(0, 0, 0))
    pixels = ImageProcessor(config, size=2)(Image.new("RGB", (2, 2), (255, 0, 51)))
    np.testing.assert_allclose(pixels[:, 0, 0], [1.0, -1.0, 0.2], atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I", "F", "I;16", "HSV", "LAB"])
def test_every_pillow_mode_has_a_defined_conversion(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 3))).mode == "RGB"


def test_sixteen_bits_are_stretched_not_clipped() -> None:
    values = np.array([[1000, 3000], [2000, 1000]], dtype=np.uint16)
    assert np.asarray(to_rgb(Image.fromarray(values)))[..., 0].tolist() == [[0, 255], [128, 0]]


def test_a_flat_sixteen_bit_image_is_black() -> None:
    assert np.asarray(to_rgb(Image.fromarray(np.full((2, 2), 700, dtype=np.uint16)))).max() == 0


def test_transparency_is_laid_over_black() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 255, 255, 0))).getpixel((0, 0)) == (0, 0, 0)


def test_the_camera_orientation_is_undone() -> None:
    image = Image.new("RGB", (2, 1), (0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0))
    image.getexif()[0x0112] = 3  # upside down
    assert to_rgb(image).getpixel((1, 0)) == (255, 0, 0)
