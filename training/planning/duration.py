"""Estimate how long a run takes on this machine, from one image and one batch."""

import time

import torch

from medmoe.model.checkpoint.io import expected_tensors
from medmoe.model.medmoe import MedMoE
from medmoe.training.optimization.distributed import own_device
from medmoe.training.planning.survey import Survey

_LARGEST = 200_000_000
"""Parameters of the largest model that is timed: a larger one takes minutes to make."""
_IMAGES, _SAMPLES = 4, 4
_TOKENS, _ANSWER = 40, 6
"""Tokens of a question and of an answer."""


def estimated_seconds(found: Survey) -> float | None:
    """Return the seconds of features and training, at most; None for a model that is too large to be timed.

    Evaluation and router come on top.
    """
    config = found.architecture
    if sum(tensor.numel() for tensor in expected_tensors(config).values()) > _LARGEST:
        return None
    device = own_device()
    model = MedMoE(config).to(device)
    size = config.vision_config.image_size
    started = time.perf_counter()
    with torch.no_grad():
        features = model.vision_tower(torch.zeros(_IMAGES, 3, size, size, device=device))
    image = (time.perf_counter() - started) / _IMAGES
    model.vision_tower.requires_grad_(False)
    ids = torch.full((_SAMPLES, _TOKENS), config.text_config.vocab_size - 1, device=device)
    started = time.perf_counter()
    text = model.language_model.get_input_embeddings()(ids)
    embedded = torch.cat([model.projector(features[:_SAMPLES]), text], dim=1)
    hidden = model.language_model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    model.language_model.lm_head(hidden[:, -_ANSWER:]).float().sum().backward()
    sample = (time.perf_counter() - started) / _SAMPLES
    trained = sum(stage.epochs * stage.samples for stage in found.stages)
    return found.views * image + trained * sample
