"""What a run is told: frozen, complete, and saved beside the checkpoint that came of it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from medmoe.model.config import MedMoEConfig

Source = Literal["captions", "vqa", "classification", "modality"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """One kind of sample out of one dataset folder."""

    dataset: str
    """A folder or file below the data folder, in any form that medmoe.training.data.detection recognises."""
    source: Source
    """vqa and classification read the records of that task; captions the captions; modality asks for the records'
    imaging modality, one sample an image."""
    split: Split = "train"
    limit: int | None = None
    """At most so many samples, drawn without replacement by the run's seed; None takes all."""
    balanced: bool = False
    """Of source classification: as many samples of each label as of the rarest, drawn by the run's seed."""
    repeat: int = 1
    """How often each sample is seen in an epoch."""
    offer_all_domains: bool = False
    """Of source modality: offer every domain as a label, as a user would, instead of some that include the truth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """One stage of gradient descent on the answer tokens."""

    name: str
    data: tuple[DataConfig, ...]
    trainable: tuple[str, ...]
    """Regular expressions, matched from the start of a parameter's name; everything else is frozen."""
    epochs: float
    learning_rate: float
    batch_size: int
    """Sequences a step, over all processes and accumulated batches."""
    pack: int = 1
    """At most so many questions on one image share a sequence; 1 is a sequence a question, as upstream has it."""
    dropout: float = 0.0
    """Of what attention, FFNs and projector add; for decoders that start from scratch on little data."""
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterConfig:
    """The router's own training: a linear classifier of image modality on pooled hidden states."""

    data: tuple[DataConfig, ...]
    held_out: tuple[DataConfig, ...]
    """Images the router is measured on; their splits must not be `train`."""
    domains: tuple[str, ...]
    """The label of each expert, in expert order: the label map that upstream never recorded."""
    per_domain: int
    """Training images a domain; the paper's figure 6 saturates near 1,000 in all."""
    epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Raises ValueError when the router would be measured on what it was trained on."""
        if any(entry.split == "train" for entry in self.held_out):
            raise ValueError("held_out must not read a train split")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """A whole run: architecture, the stages in order, and the data each may see."""

    name: str
    seed: int
    architecture: MedMoEConfig
    """With the MoE layers of the result; the first two stages train the same model with dense FFNs there."""
    tokenizer_size: int
    alignment: StageConfig
    instruction_tuning: StageConfig
    router: RouterConfig
    moe_tuning: StageConfig
    evaluation: tuple[str, ...]
    """Datasets whose test split the model card reports."""

    def __post_init__(self) -> None:
        """Raises ValueError when config.json would name other experts than the router was trained for."""
        if self.router.domains != self.architecture.expert_domains:
            raise ValueError("the router's domains are not the architecture's expert_domains")

    def to_json(self) -> str:
        fields = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "architecture"
        }
        plain = {
            name: dataclasses.asdict(value)
            if dataclasses.is_dataclass(value) and not isinstance(value, type)
            else value
            for name, value in fields.items()
        }
        plain["architecture"] = self.architecture.model_dump(mode="json")
        return json.dumps(plain, indent=2) + "\n"
