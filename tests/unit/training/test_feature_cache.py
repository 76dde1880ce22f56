"""Cached features are the tower's own, are never computed twice, and survive interruption and company."""

import fcntl
import json
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from medmoe.model.files.digest import file_sha256
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.vision_tower import VisionTower
from medmoe.training.augmentation import augment
from medmoe.training.data.errors import DataError
from medmoe.training.feature_cache import FeatureCache
from tests.support.checkpoints.tiny import tiny_config

CONFIG = tiny_config()
ROW = CONFIG.vision_config.num_patches * CONFIG.vision_config.hidden_size * 2


class CountingTower(VisionTower):
    """Counts the images that pass through."""

    seen = 0

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixel_values)
        return super().forward(pixel_values)


def new_tower() -> CountingTower:
    torch.manual_seed(0)
    return CountingTower(CONFIG.vision_config).eval()


def new_images(directory: Path, count: int = 3) -> list[Path]:
    paths = [directory / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.linear_gradient("L").rotate(40 * number).resize((40, 30)).save(path)
    return paths


def by_hand(tower: VisionTower, path: Path, view: int) -> torch.Tensor:
    with Image.open(path) as image:
        seen = augment(image.convert("RGB"), digest=file_sha256(path), view=view)
    pixels = torch.from_numpy(ImageProcessor.from_config(CONFIG)(seen))
    return tower(pixels[None])[0].half().float()


def test_features_in_bfloat16_lie_apart_and_are_those_of_the_rounded_tower(tmp_path: Path) -> None:
    tower, images = new_tower(), new_images(tmp_path)
    exact = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    rounded = FeatureCache(tmp_path, tower=tower, config=CONFIG, dtype=torch.bfloat16)
    for cache in (exact, rounded):
        cache.fill(images)
    assert exact.directory != rounded.directory
    difference = rounded(images[0]) - exact(images[0])
    assert 0 < difference.norm() < 0.05 * exact(images[0]).norm()
    # The tower itself stays as it was, and a stored, rounded copy of it finds its features again.
    assert next(tower.parameters()).dtype == torch.float32
    stored = new_tower()
    stored.load_state_dict({name: value.bfloat16().float() for name, value in tower.state_dict().items()})
    assert FeatureCache(tmp_path, tower=stored, config=CONFIG, dtype=torch.bfloat16).directory == rounded.directory


def test_features_are_the_towers_own_of_each_view(tmp_path: Path) -> None:
    tower, images = new_tower(), new_images(tmp_path, 20)
    cache = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    cache.fill(images, views=2)
    for image in images:
        for view in range(2):
            torch.testing.assert_close(cache(image, view), by_hand(tower, image, view), rtol=2e-3, atol=2e-3)
    assert not torch.equal(cache(images[0], 0), cache(images[0], 1))


def test_index_from_before_views_is_extended_and_nothing_computed_again(tmp_path: Path) -> None:
    tower, images = new_tower(), new_images(tmp_path)
    FeatureCache(tmp_path, tower=tower, config=CONFIG).fill(images)
    cache = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    old = json.loads((cache.directory / "index.json").read_text())
    assert old == {file_sha256(image): row for row, image in enumerate(images)}
    before = [cache(image) for image in images]
    tower.seen = 0
    cache.fill(images, views=3)
    assert tower.seen == 6
    new = json.loads((cache.directory / "index.json").read_text())
    assert new.items() > old.items()
    assert all(torch.equal(cache(image), was) for image, was in zip(images, before, strict=True))
    cache.fill(images, views=2)
    assert tower.seen == 6


def test_equal_files_share_a_row(tmp_path: Path) -> None:
    tower, (image,) = new_tower(), new_images(tmp_path, 1)
    twin = tmp_path / "twin.png"
    twin.write_bytes(image.read_bytes())
    cache = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    cache.fill([image, twin])
    assert tower.seen == 1
    assert torch.equal(cache(image), cache(twin))


def test_rows_that_were_cut_off_are_computed_again_and_only_they(tmp_path: Path) -> None:
    tower, images = new_tower(), new_images(tmp_path)
    cache = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    cache.fill(images)
    before = [cache(image) for image in images]
    with (cache.directory / "features.float16").open("r+b") as file:
        file.truncate(2 * ROW + 5)
    tower.seen = 0
    again = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    again.fill(images)
    assert tower.seen == 1
    assert all(torch.equal(again(image), was) for image, was in zip(images, before, strict=True))


def test_features_that_were_never_indexed_are_written_over(tmp_path: Path) -> None:
    """What a run leaves that is killed between features and index."""
    tower, images = new_tower(), new_images(tmp_path)
    cache = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    cache.fill(images[:1])
    with (cache.directory / "features.float16").open("ab") as file:
        file.write(b"\1" * (ROW + 7))
    again = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    again.fill(images)
    torch.testing.assert_close(again(images[1]), by_hand(tower, images[1], 0), rtol=2e-3, atol=2e-3)


def test_rows_that_another_process_added_are_found_and_kept(tmp_path: Path) -> None:
    tower, images = new_tower(), new_images(tmp_path)
    early = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    other = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    other.fill(images[:2])
    assert torch.equal(early(images[0]), other(images[0]))
    early.fill(images[2:])
    other.fill(images, views=2)
    assert tower.seen == 6
    assert len(json.loads((early.directory / "index.json").read_text())) == 6
    torch.testing.assert_close(other(images[2]), by_hand(tower, images[2], 0), rtol=2e-3, atol=2e-3)


def test_fill_waits_for_another_that_fills(tmp_path: Path) -> None:
    """Holding the lock as another process would: fill gets through once it is free, not before."""
    tower, images = new_tower(), new_images(tmp_path)
    cache = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    with (cache.directory / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=cache.fill, args=(images,))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert tower.seen == 0
    waiting.join(120)
    assert tower.seen == 3


def test_other_weights_or_preprocessing_have_a_folder_of_their_own(tmp_path: Path) -> None:
    tower = new_tower()
    first = FeatureCache(tmp_path, tower=tower, config=CONFIG).directory
    processor = CONFIG.image_processor.model_copy(update={"background": (0, 0, 0)})
    other = FeatureCache(tmp_path, tower=tower, config=CONFIG.model_copy(update={"image_processor": processor}))
    with torch.no_grad():
        next(tower.parameters()).add_(1)
    changed = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    assert len({first, other.directory, changed.directory}) == 3


def test_a_view_that_was_never_filled_is_named(tmp_path: Path) -> None:
    images = new_images(tmp_path)
    cache = FeatureCache(tmp_path, tower=new_tower(), config=CONFIG)
    cache.fill(images)
    with pytest.raises(KeyError, match=r"view 1 of .*0\.png"):
        cache(images[0], 1)


def test_no_views_at_all_are_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, tower=new_tower(), config=CONFIG)
    with pytest.raises(ValueError, match="0 views"):
        cache.fill([], views=0)


@pytest.mark.parametrize("index", ["[1]", '{"a": 5}', '{"a": "0"}', "{", '{"a": 0, "b": 0}'])
def test_a_damaged_index_is_refused_by_name(tmp_path: Path, index: str) -> None:
    tower, images = new_tower(), new_images(tmp_path)
    cache = FeatureCache(tmp_path, tower=tower, config=CONFIG)
    cache.fill(images)
    (cache.directory / "index.json").write_text(index)
    with pytest.raises(DataError, match="damaged"):
        FeatureCache(tmp_path, tower=tower, config=CONFIG)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        FeatureCache(tmp_path, tower=new_tower(), config=CONFIG).fill([path])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tower_on_a_gpu_fills_the_same_cache(tmp_path: Path) -> None:
    tower, images = new_tower(), new_images(tmp_path)
    cache = FeatureCache(tmp_path, tower=tower.cuda(), config=CONFIG)
    cache.fill(images)
    assert cache(images[0]).device.type == "cpu"
    torch.testing.assert_close(cache(images[0]), by_hand(new_tower(), images[0], 0), rtol=1e-2, atol=1e-2)
