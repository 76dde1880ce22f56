"""Finetune a checkpoint on images of the user's own, and write a directory that serves."""

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import typer
from transformers import set_seed

from medmoe.model.checkpoint.io import load_checkpoint, save_checkpoint
from medmoe.model.checkpoint.staging import check_replaceable
from medmoe.model.checkpoint.tokenizer_files import tokenizer_files
from medmoe.model.config import MedMoEConfig, name_of
from medmoe.model.errors import ConfigError
from medmoe.model.files.licence import licence_file, stated_licence
from medmoe.model.lora.adapter_config import AdapterConfig, BaseModelIdentity
from medmoe.model.lora.attach import TrainableAdapters, attach_trainable
from medmoe.model.lora.checkpoint import base_identity, has_adapter, load_adapted, save_adapted
from medmoe.model.lora.layout import target_modules
from medmoe.model.lora.schedule import ordinary_lora
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.training.atomic_file import write_atomically
from medmoe.training.data.batches.collator import Collator
from medmoe.training.data.leakage.trained_images import extend_trained_images
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.predictors import LocalPredictor, with_progress
from medmoe.training.evaluation.prediction import Prediction
from medmoe.training.feature_cache import FeatureCache
from medmoe.training.finetune.calibration import write_calibration
from medmoe.training.finetune.card import finetuned_card
from medmoe.training.finetune.features import TowerFeatures
from medmoe.training.finetune.measurement import Measurement, comparison, quality_on
from medmoe.training.finetune.preflight import check_room, estimated_seconds
from medmoe.training.finetune.replay import RunSamples
from medmoe.training.finetune.rounds import EMBEDDINGS, PACK, Rounds
from medmoe.training.finetune.split import OwnSplit
from medmoe.training.finetune.training_reference import write_extended_reference
from medmoe.training.lora.config import GateLossConfig
from medmoe.training.lora.objective import AdapterLoss
from medmoe.training.optimization.preflight import check_disk, check_samples
from medmoe.training.optimization.runtime import RuntimeConfig
from medmoe.training.recipes.trainable import ADAPTERS, PROJECTOR, moe_trainable
from medmoe.training.run_directory import claim_directory, require_own, sole_run

Method = Literal["lora", "experts", "full"]
_TRAINABLE = {
    "experts": moe_trainable("upstream"),
    "full": (PROJECTOR, r"language_model\.model\.layers\.\d+\.(?!mlp\.gate\.)", EMBEDDINGS),
    "lora": (ADAPTERS,),
}
_RATES = {"experts": 5e-4, "full": 5e-4, "lora": 1e-3}
"""Highest learning rate by method. On a few dozen images 1e-3 lost what the checkpoint knew within ten steps."""
_RANK = 16
_NO_ANCHORS = GateLossConfig(balance=0.0, preservation=0.0, divergence=0.0)
_BATCH = 8
_EPOCHS = (4, 40)
"""Fewest and most; in between, about `_SEEN` samples are seen."""
_SEEN = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune:
    """Configure a finetuning run. The working files lie in `OUTPUT.work` until it is finished."""

    checkpoint: Path
    output: Path
    epochs: int | None = None
    """Maximum number of epochs; None chooses by the number of samples."""
    learning_rate: float | None = None
    """Highest learning rate of the run; None is the method's own."""
    method: Method | None = None
    """None is `full`."""
    replay: Path | None = None
    """Data of earlier training: some samples are trained on again, others measure what is forgotten."""
    seed: int = 0

    def check(self) -> Method:
        """Return the method. Raises as the call does where the checkpoint or the output does not allow the run."""
        check_replaceable(self.output, replace=False)
        place = next(parent for parent in self.output.resolve().parents if parent.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise ConfigError(f"{self.output} cannot be written; choose another --output")
        return self._method()

    def __call__(self, split: OwnSplit) -> str:
        """Train on `split` and write `output`, whole or not at all; returns the scores before and after as a table.

        Raises ConfigError when the checkpoint does not allow the method or another process does the same run,
        CheckpointError when `output` holds something or cannot be written, DataError for data that cannot be trained
        on, TrainingError as `train_stage`.
        """
        method = self.check()
        check_disk(self._work, trained=0, runtime=RuntimeConfig())
        with sole_run(self._work):
            return self._run(split, method=method)

    def _run(self, split: OwnSplit, *, method: Method) -> str:
        set_seed(self.seed)
        typer.echo("loading the checkpoint", err=True)
        model = load_checkpoint(self.checkpoint)
        base = base_identity(self.checkpoint)
        adapters = _adapters(model, base) if method == "lora" else None
        samples = RunSamples.draw(split, replay=self.replay, domains=model.config.expert_domains, seed=self.seed)
        self._claim(samples, base=base, method=method)
        features = TowerFeatures.of_model(model, folder=self._work / "features")
        train, measured = samples.train, samples.measured
        needed = features.bytes_needed(train, measured, model=model)
        check_room(self._work, model, trainable=_TRAINABLE[method], features=needed)
        prompt = Prompt.from_directory(self.checkpoint, model.config)
        collator = Collator(prompt, features=features.train)
        check_samples([*train, *measured], collator=collator, stage="finetuning")
        self._tell_duration(model, samples, features=features, collator=collator)
        features.train.fill_for(train)
        features.held_out.fill_for(measured)
        samples = samples.self_labelled(
            train=partial(self._predicted, model, features=features.train),
            measured=partial(self._predicted, model, features=features.held_out),
        )
        before = self._predicted(model, [*split.test, *samples.replay.measured], features=features.held_out)
        rounds = self._rounds(split, method=method, adapters=adapters, prompt=prompt, features=features.held_out)
        progress = rounds(model, samples.train, collator=collator)
        # What is measured is what was saved, in its number format.
        saved = load_adapted(self._save(model, adapters))
        after = self._predicted(saved, [*measured, *samples.others.measured], features=features.held_out)
        probe = self._probed(split, features=features)
        table = comparison(samples, before=before, after=after, probe=probe, seed=self.seed)
        self._describe(
            saved,
            samples,
            after,
            base=base,
            features=features.held_out,
            method=method,
            epochs=progress.epochs[progress.best],
            table=table,
        )
        os.replace(self._finished, self.output.resolve())
        shutil.rmtree(self._work, ignore_errors=True)
        return table

    @property
    def _work(self) -> Path:
        output = self.output.resolve()
        return output.with_name(f"{output.name}.work")

    @property
    def _finished(self) -> Path:
        return self._work / "checkpoint"

    def _method(self) -> Method:
        if has_adapter(self.checkpoint):
            raise ConfigError(f"{self.checkpoint} holds an adapter; finetune its base checkpoint instead")
        experts = bool(MedMoEConfig.from_directory(self.checkpoint).text_config.moe_layers)
        if self.method == "lora" and experts:
            raise ConfigError(f"{self.checkpoint} has experts, and adapters need a dense base; choose --method experts")
        if self.method == "experts" and not experts:
            raise ConfigError(f"{self.checkpoint} has no experts; choose --method full or lora")
        return self.method or "full"

    def _epochs(self, split: OwnSplit) -> int:
        return self.epochs or min(max(_EPOCHS[0], math.ceil(_SEEN / len(split.train))), _EPOCHS[1])

    def _claim(self, samples: RunSamples, *, base: BaseModelIdentity, method: Method) -> None:
        """Bind the working files to this base, data and settings, so that only the same command continues them."""
        require_own(self._work)
        settings = {
            "base": base.model_dump(),
            "method": [method, *_TRAINABLE[method]],
            "epochs": self._epochs(samples.split),
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "replay": None if self.replay is None else str(self.replay),
            "samples": samples.digests(),
        }
        claim_directory(self._work, json.dumps(settings) + "\n", made_of="command or data")

    def _tell_duration(
        self, model: MedMoE, samples: RunSamples, *, features: TowerFeatures, collator: Collator
    ) -> None:
        epochs = self._epochs(samples.split)
        seconds = estimated_seconds(
            model,
            samples.train,
            held_out=samples.measured,
            features=features,
            collator=collator,
            epochs=epochs,
            batch_size=_batch_size(samples.split),
            pack=PACK,
        )
        typer.echo(f"{epochs} epochs at most; about {max(seconds / 60, 0.1):.1f} minutes on this machine", err=True)

    def _rounds(
        self,
        split: OwnSplit,
        *,
        method: Method,
        adapters: TrainableAdapters | None,
        prompt: Prompt,
        features: FeatureCache,
    ) -> Rounds:
        return Rounds(
            directory=self._work,
            epochs=self._epochs(split),
            learning_rate=_RATES[method] if self.learning_rate is None else self.learning_rate,
            weight_decay=0.0 if method == "lora" else 0.01,
            trainable=_TRAINABLE[method],
            batch_size=_batch_size(split),
            seed=self.seed,
            measure=quality_on(split.val, prompt=prompt, features=features),
            loss=None if adapters is None else lambda tuned: AdapterLoss(tuned, adapters, losses=_NO_ANCHORS),
        )

    def _save(self, model: MedMoE, adapters: TrainableAdapters | None) -> Path:
        """Write the trained weights to the working files; return their directory."""
        name = name_of(self.output)
        if adapters is not None:
            save_adapted(
                self._finished, adapters.config, adapters.tensors(), base=self.checkpoint, name=name, replace=True
            )
            return self._finished
        model.config = model.config.model_copy(update={"name": name})
        save_checkpoint(model, self._finished, tokenizer_files=tokenizer_files(self.checkpoint), replace=True)
        if (licence := licence_file(self.checkpoint)) is not None:
            shutil.copyfile(licence, self._finished / licence.name)
        return self._finished

    def _probed(self, split: OwnSplit, *, features: TowerFeatures) -> Measurement | None:
        labelled = [sample for sample in split.test if sample.kind == "classification"]
        predictions = features.probe(split)
        return Measurement.of(labelled, predictions, seed=self.seed) if predictions else None

    def _predicted(self, model: MedMoE, samples: Sequence[Sample], *, features: FeatureCache) -> list[Prediction]:
        prompt = Prompt.from_directory(self.checkpoint, model.config)
        return list(with_progress(LocalPredictor(model, prompt=prompt, features=features).predict)(samples))

    def _describe(
        self,
        saved: MedMoE,
        samples: RunSamples,
        predictions: Sequence[Prediction],
        *,
        base: BaseModelIdentity,
        features: FeatureCache,
        method: Method,
        epochs: float,
        table: str,
    ) -> None:
        """Write the files that lie beside the weights: calibration, training reference, card and trained images."""
        finished, split, train = self._finished, samples.split, samples.train
        typer.echo("calibrating on the val split", err=True)
        calibration = write_calibration(
            finished, split.val, predictions, model=saved, features=features, seed=self.seed
        )
        typer.echo("adding the training images to those that the checkpoint knows", err=True)
        reference = write_extended_reference(
            finished, base=self.checkpoint, train=train, val=split.val, model=saved, features=features
        )
        typer.echo(reference, err=True)
        card = finetuned_card(
            split,
            name=name_of(self.output),
            base=base,
            licence=stated_licence(self.checkpoint),
            method=method,
            epochs=epochs,
            seed=self.seed,
            replayed=len(samples.replay.train),
            table=table,
            calibration=calibration,
            reference=reference,
        )
        write_atomically(finished / "README.md", card)
        extend_trained_images(finished, base=self.checkpoint, images={sample.image for sample in train})


def _adapters(model: MedMoE, base: BaseModelIdentity) -> TrainableAdapters:
    text = model.config.text_config
    adapter = AdapterConfig(
        base=base,
        dtype=model.config.dtype,
        target_modules=target_modules(text, attention=False),
        router_scope="block",
        anchor_mode="null",
        layers=ordinary_lora(_RANK, num_layers=text.num_hidden_layers),
        training={"command": "finetune"},
    )
    return attach_trainable(model, adapter)


def _batch_size(split: OwnSplit) -> int:
    return min(_BATCH, len(split.train))
