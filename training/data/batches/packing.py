"""Pack questions on one image into a sequence: the image's tokens, most of a short prompt, are computed once.

A packed sequence is one image prefix followed by segments, each a question with its answer. A segment sees the prefix
and itself, and its positions continue from the prefix: every token gets what it would get in a sequence of its own, so
losses and gradients are those of unpacked training. Upstream has one sequence a question (or one conversation, whose
later questions see the earlier answers).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch

from medmoe.training.data.sample import Sample

Pack = tuple[Sample, ...]
"""At least one sample; all of one image, domain and prefix."""
PADDING, PREFIX = -1, 0
"""Segment numbers of padding and of the image prefix; questions count from 1."""


def pack_by_image(samples: Sequence[Sample], *, most: int, seed: int) -> list[Pack]:
    """Return packs of at most `most` questions on one image, in an order drawn by `seed`; captions stay alone.

    A caption's prefix is another one than a question's, and an image has one caption. A sample that is there several
    times is in several packs.
    """
    rng = random.Random(seed)
    groups: dict[tuple[object, ...], list[Sample]] = defaultdict(list)
    times: Counter[tuple[str, str]] = Counter()
    for number, sample in enumerate(rng.sample(samples, len(samples))):
        alone = number if sample.kind == "caption" else None
        groups[(sample.image, sample.domain, alone, times[sample.dataset, sample.id])].append(sample)
        times[sample.dataset, sample.id] += 1
    packs = [tuple(group[start : start + most]) for group in groups.values() for start in range(0, len(group), most)]
    return rng.sample(packs, len(packs))


def packed_mask(segments_BL: torch.Tensor) -> torch.Tensor:
    """Return bool [B, 1, L, L], true where a query (third axis) may see a key: causal, prefix and own segment only.

    Padding sees itself, since a row that sees nothing has no softmax.
    """
    length = segments_BL.shape[1]
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=segments_BL.device).tril()
    key_B1L = segments_BL[:, None, :]
    seen_BLL = (key_B1L == PREFIX) | (key_B1L == segments_BL[:, :, None])
    return (causal_LL & seen_BLL)[:, None]
