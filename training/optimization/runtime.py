"""Configure how a run is carried out on one machine; it is no part of the recipe.

Another machine may finish what this one began. With float32 the results agree to rounding for every choice.
"""

import os
from dataclasses import dataclass

import torch

from medmoe.model.errors import ConfigError
from medmoe.training.config import Precision
from medmoe.training.precision import fast_dtype

_WORKERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeConfig:
    """Configure precision, accumulation, checkpoints and workers. Raises ConfigError for values out of range."""

    precision: Precision = "auto"
    """Precision of matrix products; weights, gradients, gates and losses stay float32. auto: bfloat16 on a device that
    has it (`fast_dtype`), else float32."""
    accumulate: int = 1
    """Batches whose gradients are added before a step; a stage's batch is divided among them and the processes."""
    checkpoint_every: int = 200
    """Steps between two checkpoints within a stage, a multiple of `log_every`; 0 writes none."""
    log_every: int = 10
    """Steps between two lines of the log, each the mean over those steps."""
    gradient_checkpointing: bool = False
    """Compute each decoder layer's activations again in the backward pass instead of keeping them."""
    workers: int | None = None
    """Processes that prepare batches; None: none on a CPU, where they would take what the model computes with."""

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.log_every < 1 or self.checkpoint_every < 0 or (self.workers or 0) < 0:
            raise ConfigError("accumulate and log_every count from 1, checkpoint_every and workers from 0")
        # A logged loss is a mean since the last line: a run continued between two lines would log another one.
        if self.checkpoint_every % self.log_every:
            raise ConfigError(
                f"--checkpoint-every {self.checkpoint_every} is no multiple of {self.log_every}, the steps between two "
                "lines of the log; choose one"
            )

    def device_batch(self, batch_size: int, *, processes: int) -> int:
        """Return the sequences of a stage's `batch_size` that one process takes at a time.

        Raises ConfigError when they cannot be divided: another batch size would be another recipe.
        """
        parts = processes * self.accumulate
        if batch_size % parts:
            raise ConfigError(
                f"a batch of {batch_size} cannot be divided among {processes} processes with {self.accumulate} "
                "accumulated batches each; choose numbers whose product divides it"
            )
        return batch_size // parts

    def dtype(self, device: torch.device) -> torch.dtype:
        """Return the number format of matrix products on `device`."""
        if self.precision == "auto":
            return fast_dtype(device)
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def loader_workers(self, device: torch.device, *, processes: int) -> int:
        """Return the number of processes beside each of the run's processes that prepare its batches."""
        if self.workers is not None:
            return self.workers
        return 0 if device.type == "cpu" else min(_WORKERS, (os.cpu_count() or 1) // processes)
