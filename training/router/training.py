"""Train the router: a linear classifier of imaging modality (arXiv 2404.10237, eq. 3).

As upstream's notebook does it: one vector a sample, the mean over every hidden-state tensor of the language model and
over all positions of image and question; then one linear layer with bias, cross-entropy. New here: the label map is
fixed and stored with the checkpoint, and accuracy is measured on images that were not trained on.
"""

import logging
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from medmoe.model.medmoe import MedMoE
from medmoe.training.config import RouterConfig
from medmoe.training.data.batches.collator import IGNORE_INDEX, Collator, moved
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.router.solver import solve_router

log = logging.getLogger(__name__)
_BATCH = 32


@torch.no_grad()
def pooled_hidden_states(model: MedMoE, samples: Sequence[Sample], *, collator: Collator) -> torch.Tensor:
    """Return the mean [samples, D] over layers (embedding output, each block, final norm) and prompt positions.

    Float32, computed where the model is, returned on the CPU. The prompt alone is pooled: an answer would tell the
    modality in words.
    """
    pooled = []
    device = next(model.parameters()).device
    for start in tqdm(range(0, len(samples), _BATCH), desc="router's inputs", unit="batch"):
        batch = moved(collator([(sample,) for sample in samples[start : start + _BATCH]]), device)
        prompt = batch["attention_mask"] * (batch["labels"] == IGNORE_INDEX)
        embedded = model.embed(batch["input_ids"], model.projector(batch["features"]))
        output = model.language_model.model(
            inputs_embeds=embedded, attention_mask=prompt, output_hidden_states=True, use_cache=False
        )
        mean = torch.stack(output.hidden_states).mean(dim=0)
        weight = prompt[..., None].to(mean.dtype)
        pooled.append(((mean * weight).sum(dim=1) / weight.sum(dim=1)).float().cpu())
    return torch.cat(pooled)


def require_domains(samples: Sequence[Sample], *, domains: Sequence[str]) -> None:
    """Raise DataError naming the domains that no training sample shows."""
    shown = {sample.modality for sample in samples}
    if missing := [domain for domain in domains if domain not in shown]:
        raise DataError(
            f"the router has no training image of {', '.join(missing)}: read a dataset that has some too (--dataset, "
            "or the recipe's router), or train a recipe with learned gates"
        )


def balanced(samples: Sequence[Sample], *, domains: Sequence[str], per_domain: int, seed: int) -> list[Sample]:
    """Draw at most `per_domain` samples of each domain by `seed`. Raises as `require_domains`."""
    require_domains(samples, domains=domains)
    taken: Counter[str] = Counter()
    chosen = []
    for sample in random.Random(seed).sample(samples, len(samples)):
        modality = sample.modality
        if modality is not None and modality in domains and taken[modality] < per_domain:
            taken[modality] += 1
            chosen.append(sample)
    return chosen


def train_router(
    model: MedMoE,
    config: RouterConfig,
    *,
    samples: Sequence[Sample],
    held_out: Sequence[Sample],
    collator: Collator,
    seed: int,
) -> tuple[nn.Linear, dict[str, Any]]:
    """Fit the linear router on `samples`; return it with a report that holds the accuracy on `held_out`."""
    index = {domain: number for number, domain in enumerate(config.domains)}
    chosen = balanced(samples, domains=config.domains, per_domain=config.per_domain, seed=seed)
    inputs = pooled_hidden_states(model, chosen, collator=collator)
    targets = torch.tensor([index[str(sample.modality)] for sample in chosen])
    router = solve_router(inputs, targets, config=config, seed=seed)
    report = {
        "label_map": index,
        "training_images": dict(Counter(str(sample.modality) for sample in chosen)),
        "training_loss": float(F.cross_entropy(router(inputs), targets).detach()),
        "training_accuracy": _accuracy(router, inputs, targets),
        "held_out": _held_out(router, model, held_out, index=index, collator=collator),
    }
    log.info("router: %s", _summary(report))
    return router, report


def _summary(report: dict[str, Any]) -> str:
    """Describe the router in a line."""
    held_out = report["held_out"]
    domains = (f"{name} {100 * found['accuracy']:.1f} %" for name, found in held_out["per_domain"].items())
    return (
        f"{100 * held_out['accuracy']:.1f} % right on {held_out['images']} held-out images ({', '.join(domains)}), "
        f"{100 * report['training_accuracy']:.1f} % on {sum(report['training_images'].values())} training images"
    )


@torch.no_grad()
def _held_out(
    router: nn.Linear, model: MedMoE, samples: Sequence[Sample], *, index: dict[str, int], collator: Collator
) -> dict[str, Any]:
    known = [sample for sample in samples if sample.modality in index]
    inputs = pooled_hidden_states(model, known, collator=collator)
    targets = torch.tensor([index[str(sample.modality)] for sample in known])
    per_domain = {
        domain: {"images": int((targets == number).sum()), "accuracy": _accuracy(router, inputs, targets, only=number)}
        for domain, number in index.items()
    }
    return {"images": len(known), "accuracy": _accuracy(router, inputs, targets), "per_domain": per_domain}


def _accuracy(router: nn.Linear, inputs: torch.Tensor, targets: torch.Tensor, *, only: int | None = None) -> float:
    rows = torch.ones_like(targets, dtype=torch.bool) if only is None else targets == only
    with torch.no_grad():
        correct = router(inputs[rows]).argmax(dim=1) == targets[rows]
    return float(correct.float().mean()) if len(correct) else float("nan")
