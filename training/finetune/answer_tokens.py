"""Train the embeddings of the tokens that the answers hold, and of no others."""

import re
from collections.abc import Iterable

import torch

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import IGNORE_INDEX, Collator
from medmoe.training.data.sample import Sample

EMBEDDINGS = r"language_model\.(model\.embed_tokens|lm_head)\."
"""Tokens that were in no training text have nearly the same embedding. While it is frozen, each of them makes a label
that it spells unlikely, whatever the image shows."""


def train_answer_tokens_alone(model: MedMoE, samples: Iterable[Sample], *, collator: Collator) -> None:
    """Keep the embeddings of the tokens that are in no answer of `samples`, where embeddings are trained."""
    ids = sorted({id_ for sample in samples for id_ in collator.encode(sample)[1]} - {IGNORE_INDEX})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and re.match(EMBEDDINGS, name):
            kept = torch.zeros(len(parameter), *[1] * (parameter.dim() - 1))
            kept[ids] = 1
            parameter.register_hook(lambda gradient, kept=kept: gradient * kept.to(gradient))
