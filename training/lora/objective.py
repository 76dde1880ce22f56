"""Define the training objective of Med-MoE-LoRA."""

import dataclasses
import logging
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.lora.attach import RouterState, TrainableAdapters
from medmoe.model.medmoe import MedMoE
from medmoe.training.data.batches.collator import IGNORE_INDEX
from medmoe.training.lora.config import GateLossConfig
from medmoe.training.lora.gate_statistics import GateStatistics, gate_statistics
from medmoe.training.lora.losses import balance_loss, base_divergence, localized_balancing_loss, preservation_loss
from medmoe.training.optimization.loss import answer_logits

log = logging.getLogger(__name__)
_WATCH_EVERY = 50


class AdapterLoss(nn.Module):
    """Add cross-entropy on the answers and the losses on the gates, each a mean over routers."""

    def __init__(self, model: MedMoE, adapters: TrainableAdapters, *, losses: GateLossConfig) -> None:
        super().__init__()
        self.model = model
        self._adapters = adapters
        self._losses = losses
        self._calls = 0
        self.statistics: dict[str, GateStatistics] = {}
        """Statistics by router, of the last batch for which they were computed."""

    def forward(
        self, num_items_in_batch: torch.Tensor | int | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return `loss`; over accumulated batches each batch's gates count by its share of answer tokens.

        `batch` is the collator's.
        """
        input_ids, labels, general = batch["input_ids"], batch["labels"], batch["general"]
        mask = batch["attention_mask"].bool()
        with self._adapters.tagged(general[:, None].expand_as(mask)):
            logits, targets = answer_logits(self.model, batch)
        count = len(targets) if num_items_in_batch is None else num_items_in_batch
        loss = F.cross_entropy(logits, targets, reduction="sum") / count
        share = len(targets) / count
        routers = self._adapters.routers()
        if routers:
            image = input_ids == self.model.config.image_token_id
            terms = [self._gate_loss(state, mask=mask, image=image, general=general) for state in routers.values()]
            loss = loss + share * torch.stack(terms).mean()
        if self._losses.divergence:
            answered = labels[:, 1:] != IGNORE_INDEX
            rows = general[:, None].expand_as(answered)[answered]
            loss = loss + share * self._losses.divergence * base_divergence(
                logits[rows], self._base_logits(batch)[rows]
            )
        if self._calls % _WATCH_EVERY == 0:
            self._watch(routers, mask=mask, general=general)
        self._calls += 1
        return {"loss": loss}

    def figures(self) -> dict[str, float]:
        """Return the last statistics for the training log, by `ROUTER/STATISTIC`; they are of this process's batch."""
        numbers = {}
        for name, found in self.statistics.items():
            for statistic in ("entropy", "max_share", "temperature", "anchor_mass_general", "anchor_mass_medical"):
                value = getattr(found, statistic)
                if value is not None:
                    numbers[f"{name}/{statistic}"] = value
        return numbers

    def report(self) -> dict[str, Any]:
        """Return the last statistics, for the run's report."""
        return {name: dataclasses.asdict(found) for name, found in self.statistics.items()}

    @torch.no_grad()
    def _base_logits(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the base model's logits of the batch's answer tokens, without dropout."""
        training = self.model.training
        self.model.eval()
        try:
            with self._adapters.off():
                return answer_logits(self.model, batch)[0]
        finally:
            self.model.train(training)

    def _gate_loss(
        self, state: RouterState, *, mask: torch.Tensor, image: torch.Tensor, general: torch.Tensor
    ) -> torch.Tensor:
        assert state.gates is not None, "the model has just been run"
        loss = self._losses.balance * balance_loss(state.gates, n_anchor=state.n_anchor, mask=mask, image=image)
        if self._losses.preservation and state.n_anchor:
            form = preservation_loss if self._losses.preservation_form == "target" else localized_balancing_loss
            pull = form(state.gates, n_anchor=state.n_anchor, mask=mask, general=general, delta=self._losses.delta)
            loss = loss + self._losses.preservation * pull
        return loss

    def _watch(self, routers: dict[str, RouterState], *, mask: torch.Tensor, general: torch.Tensor) -> None:
        for name, state in routers.items():
            assert state.gates is not None, "the model has just been run"
            found = gate_statistics(
                state.gates,
                n_anchor=state.n_anchor,
                mask=mask,
                general=general,
                temperature=float(state.router.temperature().detach()),
            )
            self.statistics[name] = found
            if found.collapsed:
                log.warning("%s has collapsed: one expert takes %.3f of the gate", name, found.max_share)
