"""Finetune a checkpoint on images of the user's own, and write a directory that serves."""

import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import typer
from transformers import set_seed

from medmoe.model.checkpoint.io import load_checkpoint, save_checkpoint
from medmoe.model.checkpoint.staging import check_replaceable
from medmoe.model.checkpoint.tokenizer_files import tokenizer_files
from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.files.licence import licence_file, stated_licence
from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.model.lora.attach import TrainableAdapters, attach_trainable
from medmoe.model.lora.checkpoint import base_identity, has_adapter, load_adapted, save_adapted
from medmoe.model.lora.layout import target_modules
from medmoe.model.lora.schedule import explicit
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.leakage.image_digests import ImageDigests
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.predictors import LocalPredictor, with_progress
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.finetune.calibration import write_calibration
from medmoe.training.finetune.card import finetuned_card
from medmoe.training.finetune.data import read_own_data
from medmoe.training.finetune.measurement import Measurement, Quality, comparison
from medmoe.training.finetune.reference import write_extended_reference
from medmoe.training.finetune.rounds import Rounds
from medmoe.training.finetune.split import OwnSplit, split_own_data
from medmoe.training.lora.config import GateLossConfig
from medmoe.training.lora.objective import AdapterLoss
from medmoe.training.optimization.distributed import own_device
from medmoe.training.optimization.loss import AnswerLoss
from medmoe.training.optimization.preflight import check_disk, check_samples
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.recipes.trainable import ADAPTERS, PROJECTOR, moe_trainable
from medmoe.training.run_directory import claim_directory

Method = Literal["lora", "experts", "full"]
_TRAINABLE = {
    "experts": moe_trainable("upstream"),
    "full": (PROJECTOR, r"language_model\.(?!model\.layers\.\d+\.mlp\.gate\.)"),
    "lora": (ADAPTERS,),
}
_RATES = {"experts": 3e-4, "full": 2e-4, "lora": 1e-3}
"""Highest learning rate by method. On a few dozen images 1e-3 lost what the checkpoint knew within ten steps."""
_RANK = 16
_BATCH = 4
_VIEWS, _FEW = 4, 300
"""Views of each training image where there are at most `_FEW` of them, else one."""
_REPLAYED, _REMEMBERED = 200, 100
"""Samples of the replay data that are trained on, and that measure the old skills; at most."""
_EPOCHS = (4, 40)
"""Fewest and most; in between, about `_SEEN` samples are seen."""
_SEEN = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune:
    """Configure a finetuning run. The working files lie in `OUTPUT.work` until it is finished."""

    checkpoint: Path
    data: Path
    output: Path
    epochs: int | None = None
    """At most; None chooses by the number of samples."""
    learning_rate: float | None = None
    """Highest of the run; None is the method's own."""
    method: Method | None = None
    """None: experts where the checkpoint has them, else full."""
    group: str | None = None
    replay: Path | None = None
    """Data of earlier training: some samples are trained on again, others measure what is forgotten."""
    seed: int = 0

    def split(self) -> OwnSplit:
        """Return the samples as they will be used. Raises DataError when they cannot be."""
        return split_own_data(read_own_data(self.data, group=self.group), seed=self.seed)

    def __call__(self, split: OwnSplit) -> str:
        """Train on `split` and write `output`, whole or not at all; returns the scores before and after as a table.

        Raises ConfigError when the checkpoint does not allow the method, CheckpointError when `output` holds something
        or cannot be written, DataError for data that cannot be trained on, TrainingError as `train_stage`.
        """
        method = self._method()
        check_replaceable(self.output, replace=False)
        set_seed(self.seed)
        model = load_checkpoint(self.checkpoint)
        adapters, adapter = self._adapters(model) if method == "lora" else (None, None)
        epochs = self.epochs or min(max(_EPOCHS[0], math.ceil(_SEEN / len(split.train))), _EPOCHS[1])
        self._claim(split, method=method, epochs=epochs, parameters=sum(p.numel() for p in model.parameters()))
        replayed, remembered = self._replayed()
        train = _training(split.train, seed=self.seed) + replayed
        measured = [*split.val, *split.test, *remembered]
        prompt = Prompt.from_directory(self.checkpoint, model.config)
        features = FeatureCache(self._work / "features", tower=model.vision_tower.to(own_device()), config=model.config)
        collator = Collator(prompt, features=features)
        check_samples([*train, *measured], collator=collator, stage="finetuning")
        features.fill([split.train[0].image])
        self._tell_time(model, train, held_out=measured, features=features, collator=collator, epochs=epochs)
        features.fill_for([*train, *measured])
        predictions = self._predicted(model, [*split.test, *remembered], features=features)
        before, knew = (Measurement.of(samples, predictions, seed=self.seed) for samples in (split.test, remembered))
        progress = Rounds(
            directory=self._work,
            epochs=epochs,
            learning_rate=self.learning_rate or _RATES[method],
            weight_decay=0.0 if method == "lora" else 0.01,
            trainable=_TRAINABLE[method],
            batch_size=min(_BATCH, len(train)),
            seed=self.seed,
            measure=self._quality(split.val, prompt=prompt, features=features, collator=collator),
            loss=None if adapters is None else lambda tuned: AdapterLoss(tuned, adapters, losses=_NO_ANCHORS),
        )(model, train, collator=collator)
        finished = self._work / "checkpoint"
        if adapters is None or adapter is None:
            model.config = model.config.model_copy(update={"name": self.output.name})
            save_checkpoint(model, finished, tokenizer_files=tokenizer_files(self.checkpoint), replace=True)
            if (licence := licence_file(self.checkpoint)) is not None:
                shutil.copyfile(licence, finished / licence.name)
        else:
            save_adapted(
                finished, adapter, adapters.tensors(), base=self.checkpoint, name=self.output.name, replace=True
            )
        # What is measured is what was saved, in its number format.
        saved = load_adapted(finished)
        predictions = self._predicted(saved, measured, features=features)
        table = comparison(before, Measurement.of(split.test, predictions, seed=self.seed))
        if remembered:
            knows = Measurement.of(remembered, predictions, seed=self.seed)
            table += f"\n\n{comparison(knew, knows, measured_on='samples of --replay')}"
        calibration = write_calibration(
            finished, split.val, predictions, model=saved, features=features, seed=self.seed
        )
        reference = write_extended_reference(
            finished, base=self.checkpoint, train=train, val=split.val, model=saved, features=features
        )
        typer.echo(reference, err=True)
        card = finetuned_card(
            split,
            name=self.output.name,
            base=base_identity(self.checkpoint),
            licence=stated_licence(self.checkpoint),
            method=method,
            epochs=progress.epochs,
            seed=self.seed,
            replayed=len(replayed),
            table=table,
            calibration=calibration,
            reference=reference,
        )
        write_atomically(finished / "README.md", card)
        os.replace(finished, self.output)
        shutil.rmtree(self._work, ignore_errors=True)
        return table

    @property
    def _work(self) -> Path:
        return self.output.with_name(f"{self.output.name}.work")

    def _method(self) -> Method:
        if has_adapter(self.checkpoint):
            raise ConfigError(f"{self.checkpoint} holds an adapter; finetune its base checkpoint instead")
        experts = bool(MedMoEConfig.from_directory(self.checkpoint).text_config.moe_layers)
        if self.method == "lora" and experts:
            raise ConfigError(f"{self.checkpoint} has experts, and adapters need a dense base; choose --method experts")
        if self.method == "experts" and not experts:
            raise ConfigError(f"{self.checkpoint} has no experts; choose --method full or lora")
        return self.method or ("experts" if experts else "full")

    def _adapters(self, model: MedMoE) -> tuple[TrainableAdapters, AdapterConfig]:
        text = model.config.text_config
        adapter = AdapterConfig(
            base=base_identity(self.checkpoint),
            dtype=model.config.dtype,
            target_modules=target_modules(text, attention=False),
            router_scope="block",
            anchor_mode="null",
            layers=(explicit((_RANK,), n_anchor=0),) * text.num_hidden_layers,
            training={"command": "finetune"},
        )
        return attach_trainable(model, adapter), adapter

    def _claim(self, split: OwnSplit, *, method: Method, epochs: int, parameters: int) -> None:
        """Bind the working files to this base, data and settings, so that only the same command continues them."""
        check_disk(self._work, trained=parameters, runtime=RuntimeConfig())
        digests = ImageDigests()
        settings = {
            "base": base_identity(self.checkpoint).model_dump(),
            "method": method,
            "epochs": epochs,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "replay": None if self.replay is None else str(self.replay),
            "samples": [[s.id, s.split, s.question, s.answer, digests.of_bytes(s.image)] for s in split.samples],
        }
        claim_directory(self._work, json.dumps(settings) + "\n", made_of="command or data")

    def _replayed(self) -> tuple[list[Sample], list[Sample]]:
        """Return samples of the replay data to train on and others to measure, of different images."""
        if self.replay is None:
            return [], []
        drawn = random.Random(self.seed)
        samples = read_own_data(self.replay).samples
        images = sorted({sample.image for sample in samples if sample.split != "train"})
        if not images:
            images = sorted({sample.image for sample in samples})
            images = drawn.sample(images, math.ceil(len(images) / 5))
        held_out = set(images)
        train = [replace(sample, split="train") for sample in samples if sample.image not in held_out]
        # The user's own samples may have the same ids.
        measured = [replace(s, split="test", id=f"replay {s.id}") for s in samples if s.image in held_out]
        replayed = drawn.sample(train, min(_REPLAYED, len(train)))
        return replayed, drawn.sample(measured, min(_REMEMBERED, len(measured)))

    def _quality(
        self, val: Sequence[Sample], *, prompt: Prompt, features: FeatureCache, collator: Collator
    ) -> Callable[[MedMoE], Quality]:
        """Return the measure that the rounds are compared by."""
        labelled = [sample for sample in val if sample.kind == "classification"]

        def measure(model: MedMoE) -> Quality:
            predictor = LocalPredictor(model, prompt=prompt, features=features)
            return Quality.of(model, val, list(predictor.predict(labelled)), collator=collator)

        return measure

    def _tell_time(
        self,
        model: MedMoE,
        train: Sequence[Sample],
        *,
        held_out: Sequence[Sample],
        features: FeatureCache,
        collator: Collator,
        epochs: int,
    ) -> None:
        """Time one image and one sample, and say how long the whole takes at most."""
        started = time.perf_counter()
        features.fill([held_out[0].image])
        image_seconds = time.perf_counter() - started
        known = replace(train[0], image=held_out[0].image, view=0)
        started = time.perf_counter()
        AnswerLoss(model)(**collator([(known,)] * _BATCH))["loss"].backward()
        model.zero_grad(set_to_none=True)
        sample_seconds = (time.perf_counter() - started) / _BATCH
        views = {sample.image: sample.views for sample in [*held_out, *train]}
        seconds = sum(views.values()) * image_seconds + (epochs * len(train) + 2 * len(held_out)) * sample_seconds
        typer.echo(f"{epochs} epochs at most; about {max(seconds / 60, 0.1):.1f} minutes on this machine", err=True)

    def _predicted(self, model: MedMoE, samples: Sequence[Sample], *, features: FeatureCache) -> list[Prediction]:
        prompt = Prompt.from_directory(self.checkpoint, model.config)
        predictor = LocalPredictor(model, prompt=prompt, features=features)
        return list(with_progress(predictor.predict)(samples))


_NO_ANCHORS = GateLossConfig(balance=0.0, preservation=0.0, divergence=0.0)


def _training(samples: Sequence[Sample], *, seed: int) -> list[Sample]:
    """Return the samples with several views, and with their labels in an order drawn by `seed`."""
    views = _VIEWS if len({sample.image for sample in samples}) <= _FEW else 1
    drawn = random.Random(seed)
    return [
        replace(sample, views=views, labels=tuple(drawn.sample(sample.labels, len(sample.labels))))
        for sample in samples
    ]
