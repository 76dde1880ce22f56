"""Run one stage of gradient descent: our loss on transformers' Trainer."""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ProgressCallback

from medmoe.model.errors import ConfigError
from medmoe.model.medmoe import MedMoE
from medmoe.training.config import StageConfig
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.batches.packing import pack_by_image
from medmoe.training.data.sample import Sample
from medmoe.training.optimization.callbacks.progress_bar import ProgressBar
from medmoe.training.optimization.callbacks.routing_callback import RoutingCallback
from medmoe.training.optimization.distributed import is_first, own_device, process_count, process_index, wait_for_all
from medmoe.training.optimization.dropout import residual_dropout
from medmoe.training.optimization.fsdp import check_fsdp, make_whole
from medmoe.training.optimization.loss import AnswerLoss
from medmoe.training.optimization.preflight import check_disk, check_stage
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.optimization.sample_order import EpochDataset
from medmoe.training.optimization.step_checkpoints import StepCheckpoints
from medmoe.training.optimization.trainer import StageTrainer
from medmoe.training.stage_transition import set_trainable

log = logging.getLogger(__name__)


def train_stage(
    model: MedMoE,
    stage: StageConfig,
    *,
    samples: list[Sample],
    collator: Collator,
    directory: Path,
    seed: int,
    runtime: RuntimeConfig,
    objective: Callable[[MedMoE], nn.Module] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train `model` in place; returns the stage's log: loss by step, speed and memory, what was trainable.

    `objective` makes of the model the module whose `loss` is minimised, by default AnswerLoss. `directory` takes
    TensorBoard's figures and step checkpoints. A stage that was killed continues from its last step checkpoint, with
    the same losses and weights as without the interruption. The caller removes the step checkpoints when it has saved
    the result (`StepCheckpoints.clear`).

    Raises DataError or ConfigError before the first step when something does not fit, TrainingError during training.
    """
    trained = _freeze(model, stage, samples=samples, collator=collator, runtime=runtime)
    checkpoints = StepCheckpoints(directory)
    last = _last_checkpoint(checkpoints, stage, directory=directory, trained=trained, runtime=runtime)
    module = AnswerLoss(model, balance=stage.balance_loss) if objective is None else objective(model)
    dataset = _dataset(stage, samples, collator=collator, seed=seed)
    with residual_dropout(model, stage.dropout):
        trainer = StageTrainer(
            model=module,
            args=_arguments(stage, runtime, steps=dataset.steps, module=module, directory=directory, seed=seed),
            train_dataset=dataset,
            data_collator=collator,
            checkpoints=checkpoints,
            epochs=stage.epochs,
            optimizer=stage.optimizer,
            routing=RoutingCallback(model, objective=module),
        )
        for callback in callbacks:
            trainer.add_callback(callback)
        if trainer.is_fsdp_enabled:
            check_fsdp(trainer.accelerator.state.fsdp_plugin, adapters=not isinstance(module, AnswerLoss))
            if stage.optimizer == "muon":
                raise ConfigError("muon needs whole matrices: launch with DistributedDataParallel, or train with adamw")
        _show(trainer, directory, step=0 if last is None else int(last.name.rpartition("-")[2]))
        if runtime.gradient_checkpointing:
            _recompute(model, module)
        # Every process drops out other values; the first one's generator is that of a run of one process.
        set_seed(seed + process_index())
        model.train()
        with _without_tracebacks_of_threads():
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
        if trainer.is_fsdp_enabled and (tensors := trainer.whole_tensors()):
            make_whole(model, tensors)
        model.eval()
    if runtime.gradient_checkpointing:
        model.language_model.activation_checkpointing_disable()
    return _report(stage, trainer, samples=len(samples), trained=trained)


def _freeze(
    model: MedMoE, stage: StageConfig, *, samples: list[Sample], collator: Collator, runtime: RuntimeConfig
) -> int:
    """Check the stage and freeze what it does not train; return the number of parameters that it trains."""
    parameters = {name: parameter.numel() for name, parameter in model.named_parameters()}
    check_stage(
        stage, parameters=parameters, samples=samples, collator=collator, runtime=runtime, processes=process_count()
    )
    trainable = set_trainable(model, stage.trainable)
    trained = sum(parameters[name] for name in trainable)
    log.info("%s: %d samples, %d parameters in %d tensors", stage.name, len(samples), trained, len(trainable))
    return trained


def _last_checkpoint(
    checkpoints: StepCheckpoints, stage: StageConfig, *, directory: Path, trained: int, runtime: RuntimeConfig
) -> Path | None:
    """Return the step checkpoint from which the stage continues. Raises ConfigError when the disk has no room."""
    if is_first():
        check_disk(directory, trained=trained, runtime=runtime)
        checkpoints.clear_unfinished()
    wait_for_all()
    last = checkpoints.last()
    if last is not None:
        log.info("%s: continued from %s", stage.name, last.name)
    return last


def _dataset(stage: StageConfig, samples: list[Sample], *, collator: Collator, seed: int) -> EpochDataset:
    """Return the packs of all epochs of the stage, in their order."""
    packs = pack_by_image(samples, most=stage.pack, seed=seed)
    lengths = [collator.length(pack) for pack in packs] if stage.group_by_length else None
    return EpochDataset(packs, epochs=stage.epochs, batch_size=stage.batch_size, seed=seed, lengths=lengths)


def _arguments(
    stage: StageConfig,
    runtime: RuntimeConfig,
    *,
    steps: int,
    module: nn.Module,
    directory: Path,
    seed: int,
) -> TrainingArguments:
    processes, device = process_count(), own_device()
    arguments = TrainingArguments(
        output_dir=str(directory),
        # The dataset holds all epochs of the stage, in their order.
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        # The first step of a warm-up has a learning rate of 0: a stage of one step has none.
        warmup_steps=min(math.ceil(steps * stage.warmup_ratio), steps - 1),
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        per_device_train_batch_size=runtime.device_batch(stage.batch_size, processes=processes),
        gradient_accumulation_steps=runtime.accumulate,
        # The loss is divided by the answer tokens of the whole batch, wherever they are.
        average_tokens_across_devices=True,
        # Experts without tokens have gradients too (grouped_experts); of adapters some may take no part in a batch.
        ddp_find_unused_parameters=not isinstance(module, AnswerLoss),
        use_cpu=device.type == "cpu",
        bf16=runtime.dtype(device) == torch.bfloat16,
        seed=seed,
        logging_steps=runtime.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps" if runtime.checkpoint_every else "no",
        save_steps=runtime.checkpoint_every or 1,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
        dataloader_num_workers=runtime.loader_workers(device, processes=processes),
    )
    if arguments.n_gpu > 1:
        # One process on a machine with several GPUs uses one: several are for several processes, not for threads.
        arguments._n_gpu = 1
    return arguments


def _show(trainer: StageTrainer, directory: Path, *, step: int) -> None:
    """Add TensorBoard and the progress bar; TensorBoard's events after `step` by a killed process are undone."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(ProgressBar())
    if is_first():
        writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1 if step else None)
        trainer.add_callback(TensorBoardCallback(writer))


@contextmanager
def _without_tracebacks_of_threads() -> Iterator[None]:
    """Print no traceback for TensorBoard's thread on a full disk: the writer's next call raises the same OSError."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not isinstance(failed.exc_value, OSError):
            before(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _recompute(model: MedMoE, module: nn.Module) -> None:
    if not isinstance(module, AnswerLoss):
        raise ConfigError("gradient_checkpointing is not for adapters: a layer that is run again has lost its tags")
    model.language_model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def _report(stage: StageConfig, trainer: StageTrainer, *, samples: int, trained: int) -> dict[str, Any]:
    losses = [{"step": row["step"], "loss": row["loss"]} for row in trainer.state.log_history if "loss" in row]
    # Each is the mean since the one before.
    lengths = [after - before for before, after in pairwise([0, *(row["step"] for row in losses)])]
    weighted = sum(row["loss"] * length for row, length in zip(losses, lengths, strict=True))
    return {
        "stage": stage.name,
        "samples": samples,
        "trainable_parameters": trained,
        "steps": trainer.state.global_step,
        "processes": process_count(),
        "precision": "bfloat16" if trainer.args.bf16 else "float32",
        "first_loss": losses[0]["loss"] if losses else None,
        "last_loss": losses[-1]["loss"] if losses else None,
        "mean_loss": weighted / max(sum(lengths), 1),
        **trainer.throughput.total(),
        "peak_memory_bytes": trainer.throughput.peak_memory(),
        "seconds": trainer.throughput.seconds(),
        "losses": losses,
    }
