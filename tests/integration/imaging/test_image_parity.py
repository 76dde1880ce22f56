"""The service shows the model the pixels that training showed it, for every kind of image file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from medmoe.model.config import MedMoEConfig
from medmoe.model.image_processor import ImageProcessor
from medmoe.training.data.errors import DataError
from medmoe.training.data.image import read_pixels, read_rgb
from tests.integration.conftest import Service
from tests.support.images.dicom_files import dicom, gradient
from tests.support.images.hostile_images import encoded
from tests.support.images.odd_files import ODD_FILES, without_adobe_marker


def noise(mode: str = "RGB", size: tuple[int, int] = (70, 50)) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode) if mode != "CMYK" else Image.fromarray(pixels, "CMYK")


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def deep(kind: type) -> Image.Image:
    return Image.fromarray((np.arange(50 * 70).reshape(50, 70) * 13 + 500).astype(kind))


KINDS: dict[str, Callable[[], bytes]] = {
    **{
        f"EXIF {orientation} {kind}": lambda kind=kind, orientation=orientation: encoded(  # type: ignore[misc]
            noise(), kind, exif=turned(orientation)
        )
        for orientation in range(1, 9)
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    },
    "EXIF 9": lambda: encoded(noise(), "JPEG", exif=turned(9)),
    "EXIF damaged": lambda: encoded(noise(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "CMYK JPEG": lambda: encoded(noise("CMYK"), "JPEG"),
    "CMYK TIFF": lambda: encoded(noise("CMYK"), "TIFF"),
    "grey JPEG": lambda: encoded(noise("L"), "JPEG"),
    "grey 16 PNG": lambda: encoded(deep(np.uint16), "PNG"),
    "grey 16 TIFF": lambda: encoded(deep(np.uint16), "TIFF"),
    "grey 32 TIFF": lambda: encoded(deep(np.int32), "TIFF"),
    "grey float TIFF": lambda: encoded(deep(np.float32), "TIFF"),
    "grey 16 turned": lambda: encoded(deep(np.uint16), "PNG", exif=turned(6)),
    "grey 16 flat": lambda: encoded(Image.fromarray(np.full((20, 20), 900, np.uint16)), "PNG"),
    "one bit": lambda: encoded(noise("1"), "PNG"),
    "one bit TIFF": lambda: encoded(noise("1"), "TIFF", compression="group4"),
    "palette PNG": lambda: encoded(noise("P"), "PNG"),
    "palette BMP": lambda: encoded(noise("P"), "BMP"),
    "palette with transparency": lambda: encoded(noise("P"), "PNG", transparency=bytes(range(256))),
    "colour key": lambda: encoded(noise(), "PNG", transparency=(1, 2, 3)),
    "grey with alpha": lambda: encoded(noise("LA"), "PNG"),
    "alpha PNG": lambda: encoded(noise("RGBA"), "PNG"),
    "alpha WebP": lambda: encoded(noise("RGBA"), "WEBP", lossless=True),
    "alpha TIFF": lambda: encoded(noise("RGBA"), "TIFF"),
    "alpha turned": lambda: encoded(noise("RGBA"), "PNG", exif=turned(5)),
    "YCbCr TIFF": lambda: encoded(noise("YCbCr"), "TIFF"),
    "LAB TIFF": lambda: encoded(noise("LAB"), "TIFF"),
    "progressive": lambda: encoded(noise(), "JPEG", progressive=True),
    "colour profile": lambda: encoded(
        noise(), "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    ),
    "animated PNG": lambda: encoded(noise(), "PNG", save_all=True, append_images=[noise("L").convert("RGB")]),
    "animated WebP": lambda: encoded(noise(), "WEBP", save_all=True, append_images=[noise("L").convert("RGB")]),
    "pages": lambda: encoded(noise(), "TIFF", save_all=True, append_images=[noise("L", (30, 90))]),
    "two images": lambda: encoded(noise(), "MPO", save_all=True, append_images=[noise("L").convert("RGB")]),
    "one row": lambda: encoded(noise(size=(200, 16)), "PNG"),
    **ODD_FILES,
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", list(KINDS))
async def test_the_service_and_training_see_the_same_pixels(
    service: Service, config: MedMoEConfig, tmp_path: Path, kind: str
) -> None:
    data = KINDS[kind]()
    (tmp_path / "image").write_bytes(data)
    processor = ImageProcessor.from_config(config)
    trained = read_pixels(tmp_path / "image", processor=processor).numpy()
    files = {"image": ("image", data, "application/octet-stream")}
    fields = {"question": "What?", "allow_uniform": "true"}
    response = await service.client.post("/v1/vqa", data=fields, files=files)
    assert response.status_code == 200, response.text
    assert service.engine.last_request is not None
    served = processor(Image.fromarray(service.engine.last_request.image))
    np.testing.assert_array_equal(served, trained)


async def test_training_and_the_service_refuse_the_same_cmyk_jpeg(service: Service, tmp_path: Path) -> None:
    data = without_adobe_marker(encoded(noise("CMYK"), "JPEG"))
    (tmp_path / "image.jpg").write_bytes(data)
    with pytest.raises(DataError, match="Adobe marker"):
        read_rgb(tmp_path / "image.jpg")
    files = {"image": ("image.jpg", data, "application/octet-stream")}
    response = await service.client.post("/v1/vqa", data={"question": "What?"}, files=files)
    assert response.status_code == 415
    assert "Adobe marker" in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["GIF", "PPM", "TGA", "JPEG2000", "ICO"])
async def test_training_and_the_service_refuse_the_same_formats(service: Service, tmp_path: Path, kind: str) -> None:
    data = encoded(noise(), kind)
    # A name says nothing.
    (tmp_path / "image.png").write_bytes(data)
    with pytest.raises(DataError, match=r"image\.png is not an image that can be read: it is none of PNG, JPEG"):
        read_rgb(tmp_path / "image.png")
    files = {"image": ("image.png", data, "image/png")}
    response = await service.client.post("/v1/vqa", data={"question": "What?"}, files=files)
    assert response.status_code == 415


def test_a_dicom_file_whose_preamble_is_a_tiff_is_not_trained_on_as_the_tiff(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(encoded(noise("L"), "TIFF")[:128].ljust(128, b"\0") + dicom(gradient())[128:])
    with pytest.raises(DataError, match="medmoe render"):
        read_rgb(tmp_path / "image.tif")


@pytest.mark.parametrize("size", [(30, 30), (30, 1), (1, 30)])
def test_training_names_the_limit_that_a_large_image_exceeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"large\.png is .*: the image, padded to a square, has over 200 pixels"):
        read_rgb(tmp_path / "large.png")
