"""Correct the likelihoods of labels for what a model says of images without content.

A model prefers some words to others whatever it is shown. Source: Zhao et al. 2021, "Calibrate Before Use" (arXiv
2102.09690), with images in place of content-free texts and their geometric mean.
"""

import math
import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

_SHADES = (0, 128, 255)
_LOWEST = math.log(sys.float_info.min)


@cache
def content_free_images(size: int) -> tuple[Image.Image, ...]:
    """Return RGB images of `size` x `size` pixels that show nothing: black, grey, white and noise, always the same."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return (*(Image.new("RGB", (size, size), (shade,) * 3) for shade in _SHADES), Image.fromarray(noise))


def mean_log_likelihoods(log_likelihoods: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean log-likelihood [labels] of each label over several prompts [prompts, labels]."""
    return tuple(math.fsum(column) / len(log_likelihoods) for column in zip(*log_likelihoods, strict=True))


def contextually_calibrated(log_likelihoods: Sequence[float], content_free: Sequence[float]) -> tuple[float, ...]:
    """Return the log-likelihood of each label less its `content_free` mean. What is impossible stays impossible."""
    return tuple(score - max(free, _LOWEST) for score, free in zip(log_likelihoods, content_free, strict=True))
