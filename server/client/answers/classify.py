"""Define the answers of `/v1/classify` by mode; /docs explains each field."""

from typing import Annotated, Literal

from pydantic import Field

from medmoe.client.answers.base import Message
from medmoe.client.answers.vqa import Provenance, Routing, StoredReport, Timings, UnlikeTraining


class CalibrationNote(Message):
    method: str
    temperature: float | None
    datasets: tuple[str, ...]
    split: str
    fitted_on: int
    held_out: int
    ece_before: float
    ece_after: float


class PredictionSet(Message):
    """Labels that hold the true one with a probability of at least 1 - alpha."""

    labels: tuple[str, ...]
    alpha: float
    kind: str
    """`class` where the probability holds for each true label, `marginal` where on the average."""
    n: int
    datasets: tuple[str, ...]
    split: str


class ClassifyProvenance(Provenance):
    min_label_mass: float = 0.0


class LikelihoodProvenance(ClassifyProvenance):
    length_normalized: bool
    contextual_calibration: bool = False


class ChoiceProvenance(ClassifyProvenance):
    permutations: int


class LabelProbability(Message):
    label: str
    probability: float
    """Probability among the labels; they sum to 1."""
    log_likelihood: float


class LabelPresence(Message):
    label: str
    present: bool
    probability: float
    """Probability of yes among yes and no."""
    label_mass: float
    entropy: float
    margin: float
    abstained: bool


class _Classified(Message):
    id: str
    model: str
    abstained: bool
    """Whether the answer is not to be relied on; /docs lists the reasons."""
    unlike_training: UnlikeTraining | None = None
    calibration: CalibrationNote | None = None
    timings: Timings
    routing: Routing | None = None
    report: str | None = None
    """The DICOM structured report as base64, if it was asked for."""
    stored: StoredReport | None = None


class _OneLabel(_Classified):
    label: str
    """Most probable label."""
    probabilities: tuple[LabelProbability, ...]
    """One entry for each label, in the request's order."""
    label_mass: float
    entropy: float
    margin: float


class Classification(_OneLabel):
    """Answer of mode likelihood."""

    mode: Literal["likelihood"] = "likelihood"
    prediction_set: PredictionSet | None = None
    provenance: LikelihoodProvenance


class ChoiceClassification(_OneLabel):
    """Answer of mode choice."""

    mode: Literal["choice"] = "choice"
    permutations: int
    agreement: float
    provenance: ChoiceProvenance


class MultiLabelClassification(_Classified):
    """Answer of mode multi_label: yes or no for each label."""

    mode: Literal["multi_label"] = "multi_label"
    labels: tuple[str, ...]
    """Labels that are present."""
    probabilities: tuple[LabelPresence, ...]
    provenance: ClassifyProvenance


Mode = Literal["likelihood", "choice", "multi_label"]
AnyClassification = Classification | ChoiceClassification | MultiLabelClassification
ByMode = Annotated[AnyClassification, Field(discriminator="mode")]
