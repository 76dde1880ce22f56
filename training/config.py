"""Define recipes: frozen, complete, and saved beside the checkpoint that came of them."""

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from medmoe.model.config import NAME, MedMoEConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Source = Literal["captions", "vqa", "classification", "modality"]
Split = Literal["train", "val", "test"]
Routing = Literal["domain", "learned"]
Optimizer = Literal["adamw", "muon"]
Precision = Literal["auto", "float32", "bfloat16"]
RouterSolver = Literal["adam", "lbfgs"]
MAX_SEED = 2**32 - 1


def check_run(name: str, seed: int) -> None:
    """Raise ValueError for a name that a checkpoint cannot have, or a seed that no generator takes."""
    if re.fullmatch(NAME, name) is None:
        raise ValueError(f"name {name!r}: letters, digits, dots, hyphens and underscores make a checkpoint's name")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed}: choose 0 to {MAX_SEED}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Select one kind of sample from one dataset folder."""

    dataset: str
    """A folder or file below the data folder, in any form that medmoe.training.data.detection recognises."""
    source: Source
    """vqa and classification read the records of that task; captions the captions; modality asks for the records'
    imaging modality, one sample an image."""
    split: Split = "train"
    limit: int | None = None
    """At most so many samples, drawn without replacement by the run's seed; None takes all."""
    balanced: bool = False
    """For sources with labels: as many samples of each label as of the rarest, drawn by the run's seed."""
    even: bool = False
    """For sources with labels: samples of rarer labels are repeated until each label is about as frequent as the most
    frequent one. Nothing is left out, as `balanced` does."""
    distilled: int = 0
    """For source classification: each sample is there so many times, each time with a label drawn from the
    probabilities of a linear probe on the tower's features that was fitted without its image (knowledge distillation,
    Hinton et al. 2015: in expectation the cross-entropy against soft labels); 0 keeps the true label."""
    wordings: int = 0
    """For source classification: so many other ways of asking beside each sample's own (`wordings`)."""
    views: int = 1
    """Views of each training image that are drawn from: the image itself and augmented ones; 1 is the image alone."""
    repeat: int = 1
    """How often each sample is seen in an epoch."""
    bad_records: Literal["refuse", "leave_out"] = "refuse"
    """What to do about records that cannot be read (published files hold references to images that were not published):
    refuse the dataset, or leave them out and say in the log and the report which."""
    offer_all_domains: bool = False
    """For source modality: offer every domain as a label, as a user would, instead of some that include the truth."""
    modality: str | None = None
    """For source modality: what every image of the dataset is, in place of its records' finer names (histopathology
    and microscopy, where an expert is to learn pathology)."""
    without_images_of: tuple[str, ...] = ()
    """Datasets whose test images are left out, under whatever name they are here too: VQA-RAD's test split shares
    nearly all its images with its train split, and a run without them is measured on images that it has not seen."""
    paraphrases: bool = False
    """For source vqa, split train, where the dataset has them (VQA-RAD as published): also the other wordings of each
    question, with its answer."""

    def __post_init__(self) -> None:
        """Raise ValueError for an entry that contradicts itself or asks for nothing."""
        if self.repeat < 1:
            raise ValueError(f"{self.dataset}: repeat {self.repeat} would leave nothing of it; leave out the entry")
        if self.views < 1:
            raise ValueError(f"{self.dataset}: {self.views} views; the image itself is the first")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"{self.dataset}: limit {self.limit} would leave nothing of it; None takes all")
        if (self.balanced or self.even) and self.source not in ("classification", "modality"):
            raise ValueError(f"{self.dataset}: balanced and even need labels, and source {self.source} has none")
        if self.balanced and self.even:
            raise ValueError(f"{self.dataset}: balanced leaves samples out, even repeats them; choose one")
        if self.wordings < 0 or (self.wordings and self.source != "classification"):
            raise ValueError(f"{self.dataset}: wordings count from 0, and are for label sets")
        if self.distilled < 0 or (self.distilled and (self.source != "classification" or self.split != "train")):
            raise ValueError(f"{self.dataset}: distilled counts from 0, and is for training labels")
        if self.modality is not None and self.source != "modality":
            raise ValueError(f"{self.dataset}: modality renames what source modality asks for")
        if self.paraphrases and (self.source != "vqa" or self.split != "train"):
            raise ValueError(f"{self.dataset}: paraphrases are for training questions, not for what is measured")

    def at_most(self, limit: int | None) -> "DataConfig":
        """Return the entry with its own limit or `limit`, whichever is lower; None is no limit."""
        limits = (given for given in (self.limit, limit) if given is not None)
        return dataclasses.replace(self, limit=min(limits, default=None))


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """Configure one stage of gradient descent on the answer tokens."""

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
    group_by_length: bool = False
    """Batches of sequences that are about equally long: less padding, and less mixed batches."""
    dropout: float = 0.0
    """Dropout of what attention, FFNs and projector add; for decoders that start from scratch on little data."""
    balance_loss: float = 0.0
    """Weight of the load-balancing loss, summed over the MoE layers as upstream sums it; for gates that learn."""
    optimizer: Optimizer = "adamw"
    """adamw: the papers'. muon: Muon for the hidden layers' matrices and AdamW for the rest, for decoders that start
    from scratch."""
    seeds: int = 1
    """Number of seeds, from the run's on, that the stage is trained with, each from the same model and with its own
    draws; the result is the mean of their weights (model soup, Wortsman et al. 2022)."""
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def seeds_from(self, first: int) -> range:
        """Return the stage's seeds in a run whose own seed is `first`."""
        return range(first, first + self.seeds)


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterConfig:
    """Configure the router's own training: a linear classifier of image modality on pooled hidden states."""

    data: tuple[DataConfig, ...]
    held_out: tuple[DataConfig, ...]
    """Images the router is measured on; their splits must not be `train`."""
    domains: tuple[str, ...]
    """The label of each expert, in expert order: the label map that upstream never recorded."""
    per_domain: int
    """Training images a domain; the paper's figure 6 saturates near 1,000 in all."""
    solver: RouterSolver = "adam"
    """adam: upstream's, which stops where `epochs` end. lbfgs: the optimum of the same linear classifier with an L2
    penalty, which the next three fields have no part in."""
    epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int = 32
    l2: float = 0.0
    """For lbfgs: weight of half the squared norm, on features of unit variance."""

    def __post_init__(self) -> None:
        """Raise ValueError when it would be measured on what it was trained on, for an L2 without effect, or for
        numbers that train nothing.
        """
        if min(self.per_domain, self.epochs, self.batch_size) < 1 or not 0 < self.learning_rate < math.inf:
            raise ValueError("per_domain, epochs and batch_size count from 1, and learning_rate is above 0")
        if any(entry.split == "train" for entry in self.held_out):
            raise ValueError("held_out must not read a train split")
        if self.l2 < 0 or (self.l2 and self.solver != "lbfgs"):
            raise ValueError("l2 must not be negative, and belongs to the solver lbfgs")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Configure a whole run: architecture, the stages in order, and the data of each."""

    name: str
    seed: int
    architecture: MedMoEConfig
    """With the MoE layers of the result; the first two stages train the same model with dense FFNs there. Without MoE
    layers the third stage trains dense FFNs too: the baseline."""
    tokenizer_size: int | None
    """Size of the tokenizer learnt from the training split; None if a pretrained language model brings its own."""
    alignment: StageConfig
    instruction_tuning: StageConfig
    word_vectors: bool = False
    """Start the embeddings of a tokenizer that is learnt here from a pretrained language model's."""
    router: RouterConfig | None
    """None where no gate comes of it: routing is learned, or there are no MoE layers."""
    moe_tuning: StageConfig
    """Stage 3."""
    routing: Routing = "domain"
    """domain: every gate is a copy of one router trained on image modality, and frozen (Med-MoE). learned: each layer's
    gate starts random and is trained in stage 3 with the experts (MoE-LLaVA)."""
    function_preserving: bool = False
    """Start the experts so that upcycling changes no output. Neither upstream nor the paper does."""
    modality_labels: tuple[str, ...] = ()
    """What questions of source modality offer where there is no router, whose domains they offer otherwise."""
    evaluation: tuple[str, ...]
    """Datasets whose test split the model card reports."""

    def __post_init__(self) -> None:
        """Raise ValueError for a run that contradicts itself: its router, its experts' labels and its gates; and as
        `check_run`.
        """
        check_run(self.name, self.seed)
        gated = bool(self.architecture.text_config.moe_layers)
        if (self.router is not None) != (gated and self.routing == "domain"):
            raise ValueError("a router is trained exactly where MoE layers are routed by domain")
        if self.router is not None and self.router.domains != self.architecture.expert_domains:
            raise ValueError("the router's domains are not the architecture's expert_domains")
        if gated and self.routing == "learned" and self.architecture.expert_domains:
            raise ValueError("expert_domains would name experts that are not trained for a domain")
        if self.moe_tuning.balance_loss and not (gated and self.routing == "learned"):
            raise ValueError("a balance loss needs gates that learn")

    @property
    def domains(self) -> tuple[str, ...]:
        """Return what questions of source modality offer."""
        return self.modality_labels if self.router is None else self.router.domains

    @property
    def stage_data(self) -> tuple[DataConfig, ...]:
        """Return what the three stages are trained on."""
        return (*self.alignment.data, *self.instruction_tuning.data, *self.moe_tuning.data)

    @property
    def router_data(self) -> tuple[DataConfig, ...]:
        """Return what the router is trained and measured on."""
        return () if self.router is None else (*self.router.data, *self.router.held_out)

    def to_json(self) -> str:
        return recipe_json(self)


def recipe_json(recipe: "DataclassInstance") -> str:
    """Return fields as they are declared. Raises TypeError for a value that is neither JSON nor a configuration."""
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    return json.dumps(fields, indent=2, default=_plain) + "\n"


def _plain(value: object) -> object:
    """Return what json cannot write by itself."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"a recipe cannot hold a {type(value).__name__}")
