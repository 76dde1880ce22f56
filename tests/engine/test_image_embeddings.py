"""A cached image embedding shares memory with no other."""

from types import SimpleNamespace

import pytest
import torch

from medmoe.model.projector import Projector
from medmoe.model.vision_tower import VisionTower
from medmoe.model.vllm_plugin.image_embeddings import ImageEmbeddings
from tests.support.checkpoints.tiny import tiny_config

pytestmark = pytest.mark.engine


@torch.inference_mode()
def test_a_cached_image_does_not_keep_its_batch() -> None:
    """vLLM drops them one by one, whatever came with them: views would hold up to a batch's memory each."""
    from medmoe.model.vllm_plugin.modeling_medmoe import MedMoEForConditionalGeneration

    config = tiny_config()
    parts = SimpleNamespace(
        medmoe=config,
        vision_tower=VisionTower(config.vision_config),
        projector=Projector(config),
        _image_embeddings=ImageEmbeddings(),
        _image_scoring=None,
        _mean=torch.tensor(config.image_processor.mean)[:, None, None],
        _std=torch.tensor(config.image_processor.std)[:, None, None],
    )
    side = config.vision_config.image_size
    pixels = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    embeddings = MedMoEForConditionalGeneration.embed_multimodal(parts, pixel_values=pixels)  # type: ignore[arg-type]
    assert [tuple(one.shape) for one in embeddings] == [(config.num_image_tokens, config.text_config.hidden_size)] * 3
    assert all(one.untyped_storage().nbytes() == one.nbytes for one in embeddings)


def test_the_copies_are_what_was_copied_and_lie_apart() -> None:
    """Apart from the heap that this thread's activations come and go in: a thread's own is elsewhere."""
    memory = ImageEmbeddings()
    with torch.inference_mode():
        batch = torch.randn(5, 7, 3, dtype=torch.bfloat16)
        copies = memory.copies(batch)
        near = batch.clone()
    assert all(torch.equal(copy, one) for copy, one in zip(copies, batch, strict=True))
    assert all(copy.is_inference() for copy in copies)
    distance = min(abs(copy.data_ptr() - near.data_ptr()) for copy in copies)
    assert distance > 2**26, "glibc's heaps of threads begin at multiples of 64 MiB, the first thread's elsewhere"
