"""Finetune a checkpoint on images of the user's own, and write a directory that serves."""

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
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
from medmoe.training.data.leakage.trained_images import extend_trained_images
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.predictors import LocalPredictor, with_progress
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.finetune.calibration import write_calibration
from medmoe.training.finetune.card import finetuned_card
from medmoe.training.finetune.data import read_own_data
from medmoe.training.finetune.duration import estimated_seconds
from medmoe.training.finetune.features import TowerFeatures
from medmoe.training.finetune.measurement import Measurement, Quality, comparison
from medmoe.training.finetune.reference import write_extended_reference
from medmoe.training.finetune.replay import Replay, draw_replay, other_questions, self_labelled
from medmoe.training.finetune.rounds import PACK, Rounds
from medmoe.training.finetune.split import OwnSplit, augmented, split_own_data
from medmoe.training.lora.config import GateLossConfig
from medmoe.training.lora.objective import AdapterLoss
from medmoe.training.optimization.distributed import own_device
from medmoe.training.optimization.preflight import check_disk, check_samples
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.precision import has_bfloat16
from medmoe.training.recipes.trainable import ADAPTERS, PROJECTOR, moe_trainable
from medmoe.training.run_directory import claim_directory
from medmoe.training.stages import set_trainable

Method = Literal["lora", "experts", "full"]
_TRAINABLE = {
    "experts": moe_trainable("upstream"),
    "full": (PROJECTOR, r"language_model\.model\.layers\.\d+\.(?!mlp\.gate\.)"),
    "lora": (ADAPTERS,),
}
_RATES = {"experts": 5e-4, "full": 5e-4, "lora": 1e-3}
"""Highest learning rate by method. On a few dozen images 1e-3 lost what the checkpoint knew within ten steps."""
_COPIES = 7
"""Copies of the trained weights in float32: the best round, two step checkpoints with Adam's two moments."""
_RANK = 16
_BATCH = 8
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
    """None: full."""
    group: str | None = None
    replay: Path | None = None
    """Data of earlier training: some samples are trained on again, others measure what is forgotten."""
    seed: int = 0

    def split(self) -> OwnSplit:
        """Return the samples as they will be used. Raises DataError when they cannot be."""
        return split_own_data(read_own_data(self.data, group=self.group), seed=self.seed)

    def check(self) -> Method:
        """Return the method. Raises as the call does where the checkpoint or the output does not allow the run."""
        check_replaceable(self.output, replace=False)
        place = next(parent for parent in self.output.absolute().parents if parent.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise ConfigError(f"{self.output} cannot be written; choose another --output")
        return self._method()

    def __call__(self, split: OwnSplit) -> str:
        """Train on `split` and write `output`, whole or not at all; returns the scores before and after as a table.

        Raises ConfigError when the checkpoint does not allow the method, CheckpointError when `output` holds something
        or cannot be written, DataError for data that cannot be trained on, TrainingError as `train_stage`.
        """
        method = self.check()
        set_seed(self.seed)
        typer.echo("loading the checkpoint", err=True)
        model = load_checkpoint(self.checkpoint)
        adapters, adapter = self._adapters(model) if method == "lora" else (None, None)
        epochs = self.epochs or min(max(_EPOCHS[0], math.ceil(_SEEN / len(split.train))), _EPOCHS[1])
        replay = Replay() if self.replay is None else draw_replay(self.replay, seed=self.seed)
        others = other_questions(split, domains=model.config.expert_domains, seed=self.seed)
        own = augmented(split.train, seed=self.seed)
        train = [*own, *augmented(others.train, seed=self.seed), *replay.train]
        measured = [*split.val, *split.test, *replay.measured]
        batch_size = min(_BATCH, len(own))
        self._claim(split, method=method, epochs=epochs)
        features = TowerFeatures.of_model(model, folder=self._work / "features")
        self._check_room(model, features.bytes_needed(train, measured, model=model), method=method)
        prompt = Prompt.from_directory(self.checkpoint, model.config)
        collator = Collator(prompt, features=features.train)
        check_samples([*train, *measured], collator=collator, stage="finetuning")
        seconds = estimated_seconds(
            model,
            train,
            held_out=measured,
            features=features,
            collator=collator,
            epochs=epochs,
            batch_size=batch_size,
            pack=PACK,
        )
        typer.echo(f"{epochs} epochs at most; about {max(seconds / 60, 0.1):.1f} minutes on this machine", err=True)
        features.train.fill_for(train)
        features.held_out.fill_for(measured)
        answers = partial(self._predicted, model, features=features.train)
        old = self_labelled(others.train, split=split, predict=answers)
        train = [*own, *augmented(old, seed=self.seed), *replay.train]
        answers = partial(self._predicted, model, features=features.held_out)
        kept = self_labelled(others.measured, split=split, predict=answers)
        predictions = answers([*split.test, *replay.measured])
        before, knew = (Measurement.of(some, predictions, seed=self.seed) for some in (split.test, replay.measured))
        progress = Rounds(
            directory=self._work,
            epochs=epochs,
            learning_rate=self.learning_rate or _RATES[method],
            weight_decay=0.0 if method == "lora" else 0.01,
            trainable=_TRAINABLE[method],
            batch_size=batch_size,
            seed=self.seed,
            measure=self._quality(split.val, prompt=prompt, features=features.held_out),
            loss=None if adapters is None else lambda tuned: AdapterLoss(tuned, adapters, losses=_NO_ANCHORS),
        )(model, train, collator=collator)
        finished = self._work / "checkpoint"
        if adapters is None or adapter is None:
            model.config = model.config.model_copy(update={"name": self.output.absolute().name})
            save_checkpoint(model, finished, tokenizer_files=tokenizer_files(self.checkpoint), replace=True)
            if (licence := licence_file(self.checkpoint)) is not None:
                shutil.copyfile(licence, finished / licence.name)
        else:
            save_adapted(
                finished,
                adapter,
                adapters.tensors(),
                base=self.checkpoint,
                name=self.output.absolute().name,
                replace=True,
            )
        # What is measured is what was saved, in its number format.
        saved = load_adapted(finished)
        predictions = self._predicted(saved, [*measured, *kept], features=features.held_out)
        table = comparison(
            before,
            Measurement.of(split.test, predictions, seed=self.seed),
            probe=self._probed(split, features=features),
        )
        if kept:
            texts = {prediction.id: prediction.text for prediction in predictions}
            same = sum(texts[sample.id] == sample.answer for sample in kept)
            table += f"\n\n{same} of {len(kept)} answers to other questions about the test images stayed as they were."
        if replay.measured:
            knows = Measurement.of(replay.measured, predictions, seed=self.seed)
            table += f"\n\n{comparison(knew, knows, measured_on='samples of --replay')}"
        typer.echo("calibrating on the val split", err=True)
        calibration = write_calibration(
            finished, split.val, predictions, model=saved, features=features.held_out, seed=self.seed
        )
        typer.echo("adding the training images to those that the checkpoint knows", err=True)
        reference = write_extended_reference(
            finished, base=self.checkpoint, train=train, val=split.val, model=saved, features=features.held_out
        )
        typer.echo(reference, err=True)
        card = finetuned_card(
            split,
            name=self.output.absolute().name,
            base=base_identity(self.checkpoint),
            licence=stated_licence(self.checkpoint),
            method=method,
            epochs=progress.epochs[progress.best],
            seed=self.seed,
            replayed=len(replay.train),
            table=table,
            calibration=calibration,
            reference=reference,
        )
        write_atomically(finished / "README.md", card)
        extend_trained_images(finished, base=self.checkpoint, images={sample.image for sample in train})
        os.replace(finished, self.output)
        shutil.rmtree(self._work, ignore_errors=True)
        return table

    @property
    def _work(self) -> Path:
        output = self.output.absolute()
        return output.with_name(f"{output.name}.work")

    def _method(self) -> Method:
        if has_adapter(self.checkpoint):
            raise ConfigError(f"{self.checkpoint} holds an adapter; finetune its base checkpoint instead")
        experts = bool(MedMoEConfig.from_directory(self.checkpoint).text_config.moe_layers)
        if self.method == "lora" and experts:
            raise ConfigError(f"{self.checkpoint} has experts, and adapters need a dense base; choose --method experts")
        if self.method == "experts" and not experts:
            raise ConfigError(f"{self.checkpoint} has no experts; choose --method full or lora")
        return self.method or "full"

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

    def _claim(self, split: OwnSplit, *, method: Method, epochs: int) -> None:
        """Bind the working files to this base, data and settings, so that only the same command continues them."""
        check_disk(self._work, trained=0, runtime=RuntimeConfig())
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

    def _check_room(self, model: MedMoE, features: int, *, method: Method) -> None:
        """Raise ConfigError when the disk has no room for the features' bytes, the steps and the result."""
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        trained = sum(sizes[name] for name in set_trainable(model, _TRAINABLE[method]))
        needed = features + 4 * (_COPIES * trained + sum(sizes.values()))
        free = shutil.disk_usage(self._work).free
        if free < needed:
            raise ConfigError(
                f"{self._work} has {free / 1e9:.1f} GB left and the run needs {needed / 1e9:.1f} GB; make room, or "
                "choose another --output"
            )

    def _quality(self, val: Sequence[Sample], *, prompt: Prompt, features: FeatureCache) -> Callable[[MedMoE], Quality]:
        """Return the measure that the rounds are compared by."""
        labelled = [sample for sample in val if sample.kind == "classification"]
        collator = Collator(prompt, features=features)
        device = own_device()

        def measure(model: MedMoE) -> Quality:
            predictor = LocalPredictor(model, prompt=prompt, features=features)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device)):
                return Quality.of(model, val, list(predictor.predict(labelled)), collator=collator)

        return measure

    def _probed(self, split: OwnSplit, *, features: TowerFeatures) -> Measurement | None:
        labelled = [sample for sample in split.test if sample.kind == "classification"]
        predictions = features.probe(split)
        return Measurement.of(labelled, predictions, seed=self.seed) if predictions else None

    def _predicted(self, model: MedMoE, samples: Sequence[Sample], *, features: FeatureCache) -> list[Prediction]:
        prompt = Prompt.from_directory(self.checkpoint, model.config)
        predictor = LocalPredictor(model, prompt=prompt, features=features)
        return list(with_progress(predictor.predict)(samples))


_NO_ANCHORS = GateLossConfig(balance=0.0, preservation=0.0, divergence=0.0)
