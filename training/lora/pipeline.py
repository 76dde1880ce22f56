"""Run an adapter recipe: from a dense checkpoint and data to a directory that serves, base model included."""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path

from transformers import set_seed

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.config import MedMoEConfig
from medmoe.model.lora.adapter_config import AdapterConfig, BaseModelIdentity
from medmoe.model.lora.attach import attach_trainable
from medmoe.model.lora.checkpoint import base_identity, save_adapted
from medmoe.model.lora.layout import target_modules
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.errors import DataError
from medmoe.training.data.mixture import Teacher, read_mixture
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.linear_probe import out_of_fold_probabilities
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.lora.card import adapter_card
from medmoe.training.lora.config import LoRARunConfig
from medmoe.training.lora.objective import AdapterLoss
from medmoe.training.optimization.distributed import is_first, join_processes, own_device, wait_for_all
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.optimization.step_checkpoints import StepCheckpoints
from medmoe.training.optimization.train_stage import train_stage
from medmoe.training.run_data import claim_data
from medmoe.training.run_directory import REPORT_FILE, claim_run, sole_run


class LoRARun:
    """Run one adapter recipe in one directory."""

    def __init__(
        self,
        config: LoRARunConfig,
        *,
        base: Path,
        data: Path,
        directory: Path,
        features: Path | None = None,
        runtime: RuntimeConfig | None = None,
    ) -> None:
        """`base`: a dense checkpoint, such as the instruction-tuned stage of an ordinary run.
        `features`: a folder of tower features that runs share; None keeps them in this run's own.
        `runtime`: how it is carried out on this machine.
        """
        self.config = config
        self._base = base
        self._data = data
        self._directory = directory
        self._features_folder = features or directory / "features"
        self._runtime = runtime or RuntimeConfig()

    @property
    def checkpoint(self) -> Path:
        """Return the directory of the finished model: the base's files and the adapter's."""
        return self._directory / self.config.name

    def __call__(self) -> Path:
        """Train unless that is done; returns the checkpoint directory.

        Where several processes were launched all of them call this, and the first one writes.
        Raises DataError, CheckpointError or ConfigError before any training when an input does not fit, or when
        another run writes to the directory.
        """
        join_processes()
        with sole_run(self._directory) if is_first() else nullcontext():
            return self._run()

    def _run(self) -> Path:
        if is_first():
            claim_run(self._directory, self.config.to_json(), base=self._base_identity)
        report = self._directory / REPORT_FILE
        done = self.checkpoint.exists()
        # No process begins before all have looked.
        wait_for_all()
        if not done:
            self._train(report)
        card = self.checkpoint / "README.md"
        if is_first() and not card.exists():
            found = json.loads(report.read_text())
            write_atomically(card, adapter_card(self.config, self.checkpoint, report=found))
        wait_for_all()
        return self.checkpoint

    def _train(self, report: Path) -> None:
        set_seed(self.config.seed)
        model = load_checkpoint(self._base)
        stage = self.config.stage
        samples, left_out = self._samples(model.config)
        if is_first():
            claim_data(self._directory, samples, left_out=left_out)
        wait_for_all()
        adapter = self.adapter_config(model.config, samples=samples)
        adapters = attach_trainable(
            model,
            adapter,
            isolate=self.config.isolate,
            dropout=self.config.dropout,
            expert_dropout=self.config.expert_dropout,
        )
        tower, dtype = model.vision_tower.to(own_device()), self._runtime.dtype(own_device())
        features = FeatureCache(self._features_folder, tower=tower, config=model.config, dtype=dtype)
        if is_first():
            features.fill_for(samples)
        wait_for_all()
        if any(entry.distilled for entry in (*stage.data, *self.config.replay)):
            samples, _ = self._samples(model.config, teacher=partial(out_of_fold_probabilities, features=features))
        losses = self.config.losses
        if not any(sample.domain == "general" for sample in samples):
            losses = dataclasses.replace(losses, preservation=0.0, divergence=0.0)
        objective = AdapterLoss(model, adapters, losses=losses)
        prompt = Prompt.from_directory(self._base, model.config)
        log = train_stage(
            model,
            stage,
            samples=samples,
            collator=Collator(prompt, features=features),
            directory=self._directory / "logs",
            seed=self.config.seed,
            objective=lambda _: objective,
            runtime=self._runtime,
        )
        if is_first():
            write_atomically(report, json.dumps(log | {"routers": objective.report()}, indent=2) + "\n")
            save_adapted(self.checkpoint, adapter, adapters.tensors(), base=self._base, name=self.config.name)
            StepCheckpoints(self._directory / "logs").clear()

    def _samples(
        self, base: MedMoEConfig, *, teacher: Teacher | None = None
    ) -> tuple[list[Sample], dict[str, Mapping[str, int]]]:
        """Return the samples of data and replay, and their bad records as Mixture counts them; `teacher` is
        `read_mixture`'s.
        """
        mixture, replayed = (
            read_mixture(
                entries,
                root=self._data,
                domains=self.config.modality_labels or base.expert_domains,
                seed=self.config.seed,
                image_directory=self._directory / "images",
                teacher=teacher,
            )
            for entries in (self.config.stage.data, self.config.replay)
        )
        general = (dataclasses.replace(sample, domain="general") for sample in replayed.samples)
        return [*mixture.samples, *general], {**mixture.left_out, **replayed.left_out}

    def adapter_config(self, base: MedMoEConfig, *, samples: list[Sample]) -> AdapterConfig:
        """Return the content of adapter_config.json. Raises DataError when anchors would have nothing to learn from."""
        general = sum(sample.domain == "general" for sample in samples)
        if self.config.anchor_mode == "replay" and not general:
            raise DataError(
                "replay anchors learn from general samples, and no sample has the domain general; name data of the "
                "base's training in the recipe's replay"
            )
        return AdapterConfig(
            base=self._base_identity,
            dtype=base.dtype,
            target_modules=target_modules(base.text_config, attention=self.config.attention),
            router_scope=self.config.router_scope,
            anchor_mode=self.config.anchor_mode,
            layers=self.config.layers,
            training={
                "recipe": json.loads(self.config.to_json()),
                "samples": {"general": general, "medical": len(samples) - general},
            },
        )

    @cached_property
    def _base_identity(self) -> BaseModelIdentity:
        return base_identity(self._base)
