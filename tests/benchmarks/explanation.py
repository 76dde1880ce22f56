"""Measure how well maps point at drawn lesions, with the bundled checkpoint in this process.

    python -m tests.benchmarks.explanation [--first 0] [--drawings 12] [--grid 8]

Draws breast ultrasound images with one dark mass, takes those whose likeliest label turns from `benign` into another
when the mass is left out, and prints for each: whether the most important cell lies in the mass; the rank correlation
with the map of the same checkpoint whose decoder is random; and the probability of `benign` after the 3, 6, 12 and 24
most important cells, or random ones, are blurred.
"""

import argparse
import copy
import sys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.config import BUNDLED
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.server.inference.explain.occlusion import Grid, Occluder, importance

LABELS = ("benign", "malignant", "normal")
_SIDE = 224
_DELETED = (3, 6, 12, 24)
_BATCH = 16


def drawing(seed: int, *, mass: bool) -> tuple[Image.Image, tuple[float, float, float]]:
    """Return a drawn ultrasound image, and the centre and radius of its mass in pixels."""
    rng = np.random.default_rng(seed)
    speckle = Image.fromarray(rng.gamma(2, 35, (_SIDE, _SIDE)).clip(0, 255).astype(np.uint8))
    grey = np.array(speckle.filter(ImageFilter.GaussianBlur(1.5)), dtype=float)
    y, x = np.mgrid[:_SIDE, :_SIDE]
    grey *= 1 - 0.4 * y / _SIDE
    grey[:20] *= 1.5
    (centre_x, centre_y), radius = rng.uniform(60, 164, 2), rng.uniform(22, 38)
    if mass:
        angle = np.arctan2(y - centre_y, x - centre_x)
        edge = radius * (1 + 0.15 * np.sin(5 * angle + seed) + 0.1 * np.sin(9 * angle))
        grey[(x - centre_x) ** 2 + (y - centre_y) ** 2 < edge**2] *= 0.15
        grey[(abs(x - centre_x) < radius * 0.7) & (y > centre_y + radius)] *= 0.5
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB"), (centre_x, centre_y, radius)


class Scorer:
    """Scores labels of images with the reference model."""

    def __init__(self, model: MedMoE, prompt: Prompt) -> None:
        self._model = model
        self._prompt = prompt
        self._processor = ImageProcessor.from_config(model.config)

    @torch.inference_mode()
    def embed(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the image embeddings [N, I, D]."""
        found = []
        for start in range(0, len(images), _BATCH):
            pixels = torch.stack([torch.from_numpy(self._processor(one)) for one in images[start : start + _BATCH]])
            found.append(self._model.projector(self._model.vision_tower(pixels)))
        return torch.cat(found)

    @torch.inference_mode()
    def log_likelihoods(self, embedded: torch.Tensor, label: str, *, model: MedMoE | None = None) -> np.ndarray:
        """Return the log-likelihood [N] of `label` as the whole answer to the checkpoint's question about LABELS."""
        decoder = model or self._model
        before = self._prompt.expand(self._prompt.question(self._prompt.classification(LABELS)))
        answer = self._prompt.answer(label)
        ids = torch.tensor([[*before, *answer[:-1]]] * len(embedded))
        hidden = decoder.language_model.model(inputs_embeds=decoder.embed(ids, embedded)).last_hidden_state
        log_p = decoder.language_model.lm_head(hidden[:, len(before) - 1 :]).double().log_softmax(-1)
        found: np.ndarray = log_p[:, torch.arange(len(answer)), torch.tensor(answer)].sum(-1).numpy()
        return found


def random_decoder(model: MedMoE) -> MedMoE:
    """Return a copy of the model whose decoder has random weights."""
    found = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in found.language_model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, float(parameter.std()) if "embed" in name else 0.02)
    return found


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation of two maps."""
    ranks = [values.ravel().argsort().argsort() for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def deleted(image: Image.Image, order: np.ndarray, grid: Grid) -> list[Image.Image]:
    """Return the image with the first 3, 6, 12 and 24 cells of `order` blurred."""
    pixels, cell = np.asarray(image), _SIDE // grid.rows
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(0.65 * cell)))
    found = []
    for count in _DELETED:
        covered = np.zeros((grid.rows, grid.columns), bool)
        covered.ravel()[order[:count]] = True
        mask = covered.repeat(cell, axis=0).repeat(cell, axis=1)[..., None]
        found.append(Image.fromarray(np.where(mask, blurred, pixels)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="seed of the first drawing")
    parser.add_argument("--drawings", type=int, default=12)
    parser.add_argument("--grid", type=int, default=8, choices=(4, 7, 8, 14))
    options = parser.parse_args()
    model = load_checkpoint(BUNDLED).eval()
    scorer = Scorer(model, Prompt.from_directory(BUNDLED, model.config))
    untrained = random_decoder(model)
    grid = Grid.of((0, 0, _SIDE, _SIDE), options.grid)
    hits = []
    for seed in range(options.first, options.first + options.drawings):
        image, (x, y, radius) = drawing(seed, mass=True)
        pair = scorer.embed([image, drawing(seed, mass=False)[0]])
        scores = np.array([scorer.log_likelihoods(pair, label) for label in LABELS])
        if scores[:, 0].argmax() != 0 or scores[:, 1].argmax() == 0:
            print(f"{seed}: the mass does not decide")
            continue
        occluder = Occluder(image, grid)
        covered = scorer.embed([occluder.cover(*cell) for cell in grid.cells])
        shape = (grid.rows, grid.columns)
        shown = importance((scores[0, 0] - scorer.log_likelihoods(covered, "benign")).reshape(shape))
        other = importance(-scorer.log_likelihoods(covered, "benign", model=untrained).reshape(shape))
        row, column = (np.array(np.unravel_index(shown.argmax(), shape)) + 0.5) * _SIDE / options.grid
        hits.append(max(abs(row - y), abs(column - x)) <= radius)
        orders = [np.argsort(-shown.ravel()), np.random.default_rng(seed).permutation(shown.size)]
        images = [one for order in orders for one in deleted(image, order, grid)]
        left = np.exp(scorer.log_likelihoods(scorer.embed(images), "benign")).reshape(2, -1).round(2).tolist()
        print(
            f"{seed}: {'hit' if hits[-1] else 'miss'}, random decoder {rank_correlation(shown, other):.2f}, "
            f"benign {np.exp(scores[0, 0]):.2f}, after deletions {left[0]}, at random {left[1]}",
            flush=True,
        )
    print(f"{sum(hits)} of {len(hits)} maps point at the mass")
    return 0


if __name__ == "__main__":
    sys.exit(main())
