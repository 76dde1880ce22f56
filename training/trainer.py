"""One stage of gradient descent: our loss on transformers' Trainer."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from medmoe.model.medmoe import MedMoE
from medmoe.training.config import StageConfig
from medmoe.training.data.collator import Collator
from medmoe.training.data.packing import Pack, pack_by_image
from medmoe.training.data.sample import Sample
from medmoe.training.objective import AnswerLoss
from medmoe.training.stages import set_trainable

log = logging.getLogger(__name__)


class PackList(Dataset[Pack]):
    """A list as torch's dataset."""

    def __init__(self, packs: list[Pack]) -> None:
        self._packs = packs

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, index: int) -> Pack:
        return self._packs[index]


def train_stage(
    model: MedMoE,
    stage: StageConfig,
    *,
    samples: list[Sample],
    collator: Collator,
    directory: Path,
    seed: int,
    objective: Callable[[MedMoE], nn.Module] = AnswerLoss,
) -> dict[str, Any]:
    """Train `model` in place; returns the stage's log: loss by step, samples per second, what was trainable.

    `objective` makes of the model the module whose `loss` is minimised. Raises DataError before the first step when a
    sample cannot be encoded.
    """
    for sample in samples:
        collator.encode(sample)
    packs = pack_by_image(samples, most=stage.pack, seed=seed)
    trainable = set_trainable(model, stage.trainable)
    moving = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    log.info("%s: %d samples, %d parameters in %d tensors", stage.name, len(samples), moving, len(trainable))
    trainer = Trainer(
        model=objective(model),
        args=TrainingArguments(
            output_dir=str(directory),
            num_train_epochs=stage.epochs,
            learning_rate=stage.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=stage.warmup_ratio,
            weight_decay=stage.weight_decay,
            max_grad_norm=stage.max_grad_norm,
            per_device_train_batch_size=stage.batch_size,
            seed=seed,
            logging_steps=10,
            logging_first_step=True,
            save_strategy="no",
            report_to=["tensorboard"],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        ),
        train_dataset=PackList(packs),
        data_collator=collator,
    )
    model.train()
    result = trainer.train()
    model.eval()
    losses = [{"step": row["step"], "loss": row["loss"]} for row in trainer.state.log_history if "loss" in row]
    return {
        "stage": stage.name,
        "samples": len(samples),
        "trainable_parameters": moving,
        "steps": result.global_step,
        "first_loss": losses[0]["loss"] if losses else None,
        "last_loss": losses[-1]["loss"] if losses else None,
        "mean_loss": result.training_loss,
        "samples_per_second": result.metrics["train_samples_per_second"],
        "seconds": result.metrics["train_runtime"],
        "losses": losses,
    }
