"""Define the training objective of Med-MoE: next-token cross-entropy on the answer tokens."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import IGNORE_INDEX
from medmoe.training.data.batches.packing import packed_mask
from medmoe.training.optimization.load_balancing_loss import collect_router_logits, load_balancing_loss


class AnswerLoss(nn.Module):
    """Compute the model's loss, as Trainer wants it."""

    def __init__(self, model: MedMoE, *, balance: float = 0.0) -> None:
        """`balance`: weight of the load-balancing loss, summed over the MoE layers; for gates that learn."""
        super().__init__()
        self.model = model
        self._balance = balance
        # Where FSDP divides the model, unless accelerate's configuration says otherwise.
        self._no_split_modules = list(model.language_model._no_split_modules or ())

    def tie_weights(self) -> None:
        """Tie embedding and output head again; accelerate calls this when it has replaced parameters by shards."""
        self.model.language_model.tie_weights()

    def forward(
        self, num_items_in_batch: torch.Tensor | int | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return `loss`: the sum over answer tokens divided by their number in the whole (accumulated) batch.

        Over accumulated batches and processes each one's balance counts by its share of the answer tokens. `batch` is
        the collator's.
        """
        with ExitStack() as stack:
            gates = stack.enter_context(collect_router_logits(self.model)) if self._balance else {}
            logits, targets = answer_logits(self.model, batch)
        count = len(targets) if num_items_in_batch is None else num_items_in_batch
        loss = F.cross_entropy(logits, targets, reduction="sum") / count
        if gates:
            terms = [load_balancing_loss(layer, mask=batch["attention_mask"]) for layer in gates.values()]
            loss = loss + self._balance * torch.stack(terms).sum() * len(targets) / count
        return {"loss": loss}


def answer_logits(model: MedMoE, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 logits [A, V] of the batch's answer tokens, and those tokens [A]."""
    segments = batch.get("segments")
    mask = batch["attention_mask"] if segments is None else packed_mask(segments)
    hidden = model.hidden_states(batch["input_ids"], mask, batch["features"], position_ids=batch.get("position_ids"))
    targets = batch["labels"][:, 1:]
    answered = targets != IGNORE_INDEX
    # The head is applied where there is something to predict, not on a hundred image and question tokens.
    logits = model.language_model.lm_head(hidden[:, :-1][answered])
    return logits.float(), targets[answered]
