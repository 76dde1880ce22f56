"""The training objective of Med-MoE: next-token cross-entropy on the answer tokens."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.collator import IGNORE_INDEX
from medmoe.training.data.packing import packed_mask


class AnswerLoss(nn.Module):
    """The model with its loss, as Trainer wants it."""

    def __init__(self, model: MedMoE) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, num_items_in_batch: torch.Tensor | int | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """`loss`: the sum over answer tokens divided by their number in the whole (accumulated) batch.

        `batch` is the collator's.
        """
        logits, targets = answer_logits(self.model, batch)
        total = F.cross_entropy(logits, targets, reduction="sum")
        count = len(targets) if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count}


def answer_logits(model: MedMoE, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 logits [A, V] of the batch's answer tokens, and those tokens [A]."""
    segments = batch.get("segments")
    mask = batch["attention_mask"] if segments is None else packed_mask(segments)
    hidden = model.hidden_states(batch["input_ids"], mask, batch["features"], position_ids=batch.get("position_ids"))
    targets = batch["labels"][:, 1:]
    answered = targets != IGNORE_INDEX
    # The head is applied where there is something to predict, not on a hundred image and question tokens.
    logits = model.language_model.lm_head(hidden[:, :-1][answered])
    return logits.float(), targets[answered]
