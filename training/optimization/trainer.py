"""Extend transformers' Trainer for a stage.

Step checkpoints are complete or absent, hold of the weights only the trained ones, and no pickled code. The log has
figures of speed and routing. A loss that is not finite ends the stage.
"""

import errno
import math
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate.utils import save_fsdp_optimizer
from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback, TrainerState

from medmoe.training.config import Optimizer
from medmoe.training.optimization.callbacks.routing_callback import RoutingCallback
from medmoe.training.optimization.callbacks.throughput import Throughput
from medmoe.training.optimization.distributed import is_first, wait_for_all
from medmoe.training.optimization.fsdp import fill
from medmoe.training.optimization.muon import MuonWithAdamW
from medmoe.training.optimization.step_checkpoints import StepCheckpoints, TrainingError

_WEIGHTS = "model.safetensors"
_FULL = 2**20
"""Free bytes below which a disk counts as full."""


class StageTrainer(Trainer):
    """Train on an `EpochDataset`, which holds all epochs of a stage in order."""

    def __init__(
        self,
        *,
        checkpoints: StepCheckpoints,
        epochs: float,
        routing: RoutingCallback,
        optimizer: Optimizer,
        **options: Any,
    ) -> None:
        """`epochs`: epochs of the stage that the dataset holds. `options` are Trainer's."""
        super().__init__(callbacks=[routing, _Intervals()], **options)
        self._checkpoints = checkpoints
        self._epochs = epochs
        self._routing = routing
        self._optimizer = optimizer
        self._trained = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        self.throughput = Throughput(self.args.device)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._optimizer == "adamw":
            adamw: torch.optim.Optimizer = super().create_optimizer(model)
            return adamw
        whole = self.model if model is None else model
        optimizer = MuonWithAdamW(
            [(name, parameter) for name, parameter in whole.named_parameters() if parameter.requires_grad],
            lr=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
            decayed=self.get_decay_parameter_names(whole),
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
            dtype=torch.bfloat16 if self.args.bf16 else torch.float32,
        )
        self.optimizer = optimizer
        return optimizer

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        batches, answer_tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.throughput.count(batches)
        return batches, answer_tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Raise TrainingError when the loss is not finite: no later step can mend the weights."""
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise TrainingError(
                    f"the loss is {logs['loss']} at step {self.state.global_step}; lower the learning rate, or train "
                    "in float32"
                )
            logs |= self.throughput.lap(self._sum) | self._routing.figures(self._sum)
            if hasattr(self._objective, "figures"):
                logs |= self._objective.figures()
        # To Trainer the whole dataset is one epoch.
        share, self.state.epoch = self.state.epoch, (self.state.epoch or 0.0) * self._epochs
        super().log(logs, start_time)
        self.state.epoch = share

    @property
    def _objective(self) -> Any:
        return self.accelerator.unwrap_model(self.model)

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, which log at the same steps."""
        total: torch.Tensor = self.accelerator.reduce(tensor.to(self.args.device), reduction="sum")
        return total

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._checkpoints.staging)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Raise TrainingError when it cannot be written."""
        try:
            super()._save_checkpoint(model, trial)
            wait_for_all()
            if is_first():
                self._checkpoints.publish(self.state.global_step)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise TrainingError(
                f"the checkpoint of step {self.state.global_step} cannot be written: {self._reason(error)}; make room "
                "and run the command again, which continues from the one before"
            ) from error

    def _reason(self, error: Exception) -> str:
        """Describe why a file was not written: torch.save does not say that the disk is full."""
        full = shutil.disk_usage(self._checkpoints.staging.parent).free < _FULL
        return os.strerror(errno.ENOSPC) if full else str(error)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save what the stage trains; the rest is on disk already, as the stage's beginning."""
        if self.args.should_save:
            assert output_dir is not None, "only _save_checkpoint saves"
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            tensors = self.model.state_dict() if state_dict is None else state_dict
            trained = {name: tensors[name].detach().cpu().contiguous() for name in self._trained}
            safetensors.torch.save_file(trained, Path(output_dir) / _WEIGHTS, metadata={"format": "pt"})

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # Trainer would also save the model once more, as a pickle.
        save_fsdp_optimizer(
            self.accelerator.state.fsdp_plugin, self.accelerator, self.optimizer, self.model, output_dir
        )
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def whole_tensors(self) -> dict[str, torch.Tensor]:
        """Return every tensor of the model on the CPU, put together from the shards, in the first process; elsewhere
        none.

        Every process must call it.
        """
        tensors: dict[str, torch.Tensor] = self.accelerator.get_state_dict(self.model)
        return tensors

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Raise TrainingError when the checkpoint is not what this stage trains."""
        place = Path(resume_from_checkpoint)
        parameters = dict(self.model.named_parameters())
        with _readable(resume_from_checkpoint):
            TrainerState.load_from_json(str(place / "trainer_state.json"))
            # Trainer would go on without them.
            state = ("optimizer.bin" if self.is_fsdp_enabled else "optimizer.pt", "scheduler.pt")
            if missing := [name for name in state if not (place / name).is_file()]:
                raise ValueError(f"{missing} are missing")
            found = safetensors.torch.load_file(place / _WEIGHTS)
            if {name: tensor.shape for name, tensor in found.items()} != {
                name: parameters[name].shape for name in self._trained
            }:
                raise ValueError("not what the stage trains")
            for name, tensor in found.items():
                fill(parameters[name], tensor)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            # Trainer reads these and the generators' with weights_only: tensors and numbers, no code.
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_rng_state(checkpoint)


class _Intervals(TrainerCallback):
    """Log and save at this run's intervals, and log the last step, so that the mean loss covers all steps."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Trainer continues with the intervals of the run that wrote the step checkpoint.
        state.compute_steps(args, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_log |= state.global_step == state.max_steps
        return control


@contextmanager
def _readable(checkpoint: str | None) -> Iterator[None]:
    """Raise TrainingError for whatever is wrong with a checkpoint's file that is read inside."""
    try:
        yield
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        raise TrainingError(f"{checkpoint} cannot be continued from: remove it, and the stage begins anew") from error
