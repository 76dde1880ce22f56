"""Make a training run of seconds: images whose colour is their modality, and a recipe for a tiny model.

As a program it is a process of its own, to be killed or to be one of several:
`python -m tests.support.images.colours DATA RUN [--kill-at-step N]`, under torchrun or alone.
"""

import argparse
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medmoe.training.config import DataConfig, Optimizer, RouterConfig, RunConfig, StageConfig
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.recipes.trainable import EXPERTS, LANGUAGE_MODEL, PROJECTOR
from tests.support.checkpoints.tiny import tiny_config

COLOURS = {"CT": (230, 20, 20), "MRI": (20, 230, 20), "X-ray": (20, 20, 230), "pathology": (230, 230, 20)}
RUNTIME = RuntimeConfig(checkpoint_every=4, log_every=1, precision="float32")


def write_colours(root: Path, *, train: int = 40, val: int = 8, test: int = 0) -> Path:
    """Write a data folder with a question and a caption per image, learnable in a hundred steps from the image only."""
    folder = root / "colours"
    (folder / "images").mkdir(parents=True)
    records, captions = [], []
    noise = np.random.default_rng(0)
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    for number, split in enumerate(splits):
        modality = list(COLOURS)[number % 4]
        name = f"images/{number}.png"
        pixels = np.clip(np.array(COLOURS[modality]) + noise.normal(0, 20, (32, 32, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        common = {"image": name, "split": split, "modality": modality}
        question = {"id": f"colours/{number}", "task": "vqa", "answer": modality}
        wording = {"question": "What modality is used to take this image?", "answer_type": "open"}
        records.append(common | question | wording)
        captions.append(common | {"caption": f"A {modality} image."})
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    return root


def colours_recipe(
    *,
    dropout: float = 0.0,
    optimizer: Optimizer = "adamw",
    epochs: tuple[float, float, float] = (1.5, 3.9, 2.4),
    batch_size: int = 12,
    per_domain: int = 8,
    router_epochs: int = 5,
) -> RunConfig:
    """Return a recipe, by default of three stages of 5, 13 and 8 steps, whose epochs end within batches."""

    def stage(name: str, source: Any, trainable: tuple[str, ...], passes: float) -> StageConfig:
        return StageConfig(
            name=name,
            data=(DataConfig(dataset="colours", source=source),),
            trainable=trainable,
            epochs=passes,
            learning_rate=3e-3,
            batch_size=batch_size,
            dropout=dropout,
            optimizer=optimizer,
        )

    return RunConfig(
        name="colours",
        seed=7,
        architecture=tiny_config(),
        tokenizer_size=320,
        alignment=stage("alignment", "captions", (PROJECTOR, LANGUAGE_MODEL), epochs[0]),
        instruction_tuning=stage("instruction_tuning", "vqa", (PROJECTOR, LANGUAGE_MODEL), epochs[1]),
        router=RouterConfig(
            data=(DataConfig(dataset="colours", source="modality"),),
            held_out=(DataConfig(dataset="colours", source="modality", split="val"),),
            domains=tuple(COLOURS),
            per_domain=per_domain,
            epochs=router_epochs,
        ),
        moe_tuning=stage("moe_tuning", "vqa", (EXPERTS,), epochs[2]),
        evaluation=("colours",),
    )


def _kill_at(step: int) -> None:
    """Kill this process with SIGKILL once a stage has reached `step`."""
    from medmoe.training.optimization.trainer import StageTrainer

    original = StageTrainer.log

    def log(trainer: StageTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        original(trainer, logs, start_time)
        if trainer.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    StageTrainer.log = log  # type: ignore[method-assign]


def _shard_on_cpu() -> None:
    """Return the environment that `accelerate launch` sets for FSDP, which it refuses to set on CPU."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    original = AcceleratorState.__init__

    def init(state: Any, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        original(state, *arguments, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None:
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init


def _main() -> None:
    import torch

    from medmoe.training.pipeline import Run

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--kill-at-step", type=int)
    parser.add_argument("--sharded", type=Path, help="directory of a second run, with sharded parameters")
    options = parser.parse_args()
    if options.kill_at_step is not None:
        _kill_at(options.kill_at_step)
    recipe = colours_recipe(dropout=options.dropout, optimizer=options.optimizer)
    runtime = replace(RUNTIME, accumulate=options.accumulate)
    Run(recipe, data=options.data, directory=options.run, runtime=runtime)()
    if options.sharded is not None:
        _shard_on_cpu()
        Run(recipe, data=options.data, directory=options.sharded, runtime=RUNTIME)()


if __name__ == "__main__":
    _main()
