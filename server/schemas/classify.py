"""Define the request of `POST /v1/classify` and its response in each mode.

The models hold the limits of every deployment; medmoe.server.inference.label_prompts checks those that settings choose.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.inference import (
    MAX_LABEL_CHARS,
    ImageText,
    InstanceReference,
    Label,
    Modality,
    ModelName,
    Provenance,
    Question,
    ReportFields,
    Routing,
    StoredReport,
    Timings,
    UnlikeTraining,
    visible,
)

MAX_LABELS = 128
"""No deployment can allow more: the engine returns the log-probabilities of at most so many tokens at once."""

YES = ("yes", "Yes")
"""Datasets contain both spellings, so a trained model divides its probability between them."""
NO = ("no", "No")


def distinct_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return `labels`. Raises ValueError where two look the same."""
    # A longer one is refused by the deployment's limit, and would cost much to compare.
    compared = [visible(label) for label in labels if len(label) <= MAX_LABEL_CHARS]
    if len(set(compared)) != len(compared):
        raise ValueError("two labels are the same, or differ only in what a reader does not see")
    return labels


Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_LABELS), AfterValidator(distinct_labels)]
"""Labels of which no two look the same."""


class ClassifyFields(ReportFields):
    """The fields of `POST /v1/classify` besides the image."""

    labels: Labels
    """The classes to choose from, distinct; at least two, but for mode multi_label."""
    mode: Literal["likelihood", "choice", "multi_label"] = "likelihood"
    """likelihood: how likely each label is as the whole answer. choice: how likely each label's letter (A, B, ...) is,
    averaged over orders of the options. multi_label: yes or no about each label on its own."""
    length_normalized: bool = False
    """Mode likelihood: compare labels by their mean per token, so that long ones are not unlikely for their length."""
    contextual_calibration: bool = False
    """Mode likelihood: divide the likelihood of each label by its geometric mean on images that show nothing, so that
    no label is likely for its words alone. For labels that the checkpoint was not trained on. The first request with
    a set of labels also scores four such images."""
    permutations: int | None = Field(default=None, ge=1)
    """Mode choice: the largest number of orders of the options. As many as there are labels cancel the model's
    preference for letters and places. Absent: as many, or what the service allows."""
    question: Question | None = None
    """Asked instead of the checkpoint's own classification question."""
    include_routing: bool = False
    timeout_ms: int | None = Field(default=None, ge=1)
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Mark the answer as abstained when its best probability is lower; absent: the deployment's threshold, 0: never."""
    min_label_mass: float | None = Field(default=None, ge=0, le=1)
    """Mark the answer as abstained when its `label_mass` is lower; absent: the deployment's threshold, 0: never."""
    alpha: float = Field(default=0.0, ge=0, lt=1)
    """Mode likelihood: add the labels that hold the true one with a probability of at least 1 - alpha; 0: none. Refused
    for labels and questions that the checkpoint has no prediction sets for."""
    allow_unlike_training: bool = False
    """Do not mark the answer as abstained because the image is unlike the training images."""
    modality: Modality | None = None
    """For the router statistics only, as in `/v1/vqa`."""
    model: ModelName | None = Field(default=None, examples=["medmoe-tiny"])
    """As in `/v1/vqa`."""


class ClassifyRequest(ClassifyFields):
    """`POST /v1/classify` as JSON."""

    image: ImageText | InstanceReference


class CalibrationNote(ApiModel):
    """How `probabilities` were calibrated, and the effect on data that the calibration was not fitted on."""

    method: Literal["temperature", "isotonic"]
    temperature: float | None
    """Above 1: the model was overconfident. Null for isotonic."""
    datasets: tuple[str, ...]
    split: str
    fitted_on: int
    """Samples."""
    held_out: int
    """Samples of other images, on which the errors were measured."""
    ece_before: float
    """Expected calibration error."""
    ece_after: float


class ClassifyProvenance(Provenance):
    """Sent as fields of a request with the same image, labels, question and the response's own `mode`, these give the
    same answer again. `mode` here is the image processor's."""

    min_confidence: float | None
    min_label_mass: float
    allow_unlike_training: bool


class LikelihoodProvenance(ClassifyProvenance):
    length_normalized: bool
    contextual_calibration: bool


class ChoiceProvenance(ClassifyProvenance):
    permutations: int


class PredictionSet(ApiModel):
    """Labels that hold the true one with a probability of at least 1 - alpha, for images like those of `datasets`."""

    labels: tuple[str, ...]
    """Labels in the request's order; never empty."""
    alpha: float
    kind: Literal["class", "marginal"]
    """class: the probability holds for each true label. marginal: on the average over all, because the checkpoint has
    too few images of some label for this alpha."""
    n: int
    """Images that the sets are based on."""
    datasets: tuple[str, ...]
    split: str


class LabelProbability(ApiModel):
    label: str
    probability: float
    """Among the labels: they sum to 1. Calibrated where `calibration` says how."""
    log_likelihood: float
    """Natural logarithm of the probability that the model answers exactly this label and stops. Mode choice: that its
    answer begins with this label's letter, as a mean over the orders of the options."""


class _Head(ApiModel):
    id: str
    model: str


class _Tail(ApiModel):
    abstained: bool
    """A confidence is under `min_confidence`, `label_mass` is under `min_label_mass`, the prediction set holds every
    label, or the image is unlike the training images and `allow_unlike_training` is
    false. The answer is given all the same."""
    unlike_training: UnlikeTraining | None
    """Null: the checkpoint has no reference to compare images with."""
    calibration: CalibrationNote | None = None
    """Null: the probabilities are the model's own, because the checkpoint has no calibration or because this is not
    what it was fitted on: this set of labels, in mode likelihood, neither length-normalised nor contextually
    calibrated, with the checkpoint's own question, an image like the training images and the engine's number
    format."""
    timings: Timings
    routing: Routing | None = None
    report: str | None = None
    """The report as base64, where the request includes it."""
    stored: StoredReport | None = None


class _OneLabel(_Head):
    label: str
    """The most probable; `abstained` compares its probability."""
    probabilities: tuple[LabelProbability, ...]
    """One entry for each label, in the request's order."""
    label_mass: float
    """Probability that the model's answer is exactly one of the labels (mode choice: begins with one of the letters, as
    a mean over the orders); near 0 means that none of them fits: `abstained` is true under `min_label_mass`."""
    entropy: float
    """Entropy of `probabilities`, in nats."""
    margin: float
    """Between the two most probable labels."""


class ClassifyResponse(_Tail, _OneLabel):
    """Mode likelihood."""

    mode: Literal["likelihood"] = "likelihood"
    prediction_set: PredictionSet | None = None
    """Null where `alpha` is 0, and for an image that is unlike the training images: nothing holds for it."""
    provenance: LikelihoodProvenance


class ChoiceResponse(_Tail, _OneLabel):
    """Mode choice."""

    mode: Literal["choice"] = "choice"
    permutations: int
    """Orders of the options that were averaged. As many as there are labels cancel every preference for a letter or a
    place; fewer only lessen it."""
    agreement: float
    """Share of those orders in which `label` was the most likely; low means that the order decided."""
    provenance: ChoiceProvenance


class LabelPresence(ApiModel):
    """One label, asked about on its own."""

    label: str
    present: bool
    """Yes is at least as probable as no."""
    probability: float
    """Probability of yes among yes and no. The probabilities of different labels do not sum to 1."""
    label_mass: float
    """Probability that the model answers exactly yes or no; near 0 means that it did not take this for such a
    question."""
    entropy: float
    """Entropy of yes and no, in nats."""
    margin: float
    """Between yes and no."""
    abstained: bool
    """The likelier of yes and no is less probable than `min_confidence`, or `label_mass` is under `min_label_mass`."""


class _EachLabel(_Head):
    labels: tuple[str, ...]
    """Those that are present, in the request's order."""
    probabilities: tuple[LabelPresence, ...]
    """One entry for each label, in the request's order."""


class MultiLabelResponse(_Tail, _EachLabel):
    """Mode multi_label; `abstained` when one of the labels is."""

    mode: Literal["multi_label"] = "multi_label"
    provenance: ClassifyProvenance


AnyClassifyResponse = Annotated[ClassifyResponse | ChoiceResponse | MultiLabelResponse, Field(discriminator="mode")]


AnyClassification = ClassifyResponse | ChoiceResponse | MultiLabelResponse
