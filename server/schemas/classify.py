"""What `POST /v1/classify` answers, by mode.

Apart from medmoe.server.schemas.vqa because the modes' answers differ in shape: one label of several, or a yes or no
about each.
"""

from typing import Annotated, Literal

from pydantic import Field

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.vqa import Provenance, Routing, Timings


class CalibrationNote(ApiModel):
    """How `probabilities` were made of the model's own, and what that did to data it was not fitted on."""

    method: Literal["temperature", "isotonic"]
    temperature: float | None
    """Above 1: the model was too sure. Null for isotonic."""
    datasets: tuple[str, ...]
    split: str
    fitted_on: int
    """Samples."""
    held_out: int
    """Samples of other images, on which the errors are."""
    ece_before: float
    """Expected calibration error."""
    ece_after: float


class ClassifyProvenance(Provenance):
    """With the picture, the labels, the question and the answer's `mode` (that of the image processor is another), its
    fields sent as fields of a request give the same answer again."""

    min_confidence: float | None


class LikelihoodProvenance(ClassifyProvenance):
    length_normalized: bool


class ChoiceProvenance(ClassifyProvenance):
    permutations: int


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
    """Something answered here is less sure than `min_confidence`. It is given all the same."""
    calibration: CalibrationNote | None = None
    """Null: the probabilities are the model's own, because the checkpoint has no calibration or because this is not
    what it was fitted on: mode likelihood, not length-normalised, with the checkpoint's own question."""
    timings: Timings
    routing: Routing | None = None


class _OneLabel(_Head):
    label: str
    """The most probable; `abstained` compares its probability."""
    probabilities: tuple[LabelProbability, ...]
    """In the request's order."""
    label_mass: float
    """Probability that the model's answer is exactly one of the labels (mode choice: begins with one of the letters, as
    a mean over the orders); near 0 means that none of them fits, which `abstained` does not look at."""
    entropy: float
    """Of `probabilities`, in nats."""
    margin: float
    """Between the two most probable labels."""


class ClassifyResponse(_Tail, _OneLabel):
    """Mode likelihood."""

    mode: Literal["likelihood"] = "likelihood"
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
    """Of yes, among yes and no. The probabilities of different labels do not sum to 1."""
    label_mass: float
    """Probability that the model answers exactly yes or no; near 0 means that it did not take this for such a
    question."""
    entropy: float
    """Of yes and no, in nats."""
    margin: float
    """Between yes and no."""
    abstained: bool
    """The likelier of yes and no is less probable than `min_confidence`."""


class _EachLabel(_Head):
    labels: tuple[str, ...]
    """Those that are present, in the request's order."""
    probabilities: tuple[LabelPresence, ...]
    """In the request's order."""


class MultiLabelResponse(_Tail, _EachLabel):
    """Mode multi_label; `abstained` when one of the labels is."""

    mode: Literal["multi_label"] = "multi_label"
    provenance: ClassifyProvenance


AnyClassifyResponse = Annotated[ClassifyResponse | ChoiceResponse | MultiLabelResponse, Field(discriminator="mode")]
