"""Define a training or test sample.

Three kinds, told apart by construction: a question makes it VQA, labels make it classification, neither a caption.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medmoe.training.config import Split
from medmoe.training.data.errors import SampleError

AnswerType = Literal["open", "closed"]
Kind = Literal["vqa", "classification", "caption"]
Domain = Literal["general", "medical"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Hold an image and what should be said about it. Raises SampleError when the fields contradict each other."""

    id: str
    dataset: str
    image: Path
    """Absolute."""
    split: Split
    question: str | None = None
    answer: str
    """The answer, the label (one of `labels`) or the caption."""
    labels: tuple[str, ...] = ()
    """The label set that is offered; the question is then `Prompt.classification(labels)`."""
    modality: str | None = None
    """None where the source does not know it."""
    answer_type: AnswerType | None = None
    question_type: str | None = None
    group: str | None = None
    """The patient or the study, where the source names it."""
    domain: Domain = "medical"
    """general: replayed so that adapters do not forget; anchors of Med-MoE-LoRA learn from these alone."""
    views: int = 1
    """Number of views, the image itself and augmented ones, of which training draws one each time."""
    view: int = 0
    """The view that is shown; 0 is the image itself."""
    image_in_train: bool = False
    """The source says that this test image is a training image too."""
    near_twin_in_train: bool = False
    """The source says that training holds a nearly identical image (SLAKE's neighbouring slices)."""

    def __post_init__(self) -> None:
        if not self.image.is_absolute():
            raise SampleError("image is not an absolute path")
        if not self.answer.strip():
            raise SampleError("answer is blank")
        if self.question is not None and not self.question.strip():
            raise SampleError("question is blank")
        if self.question is not None and self.labels:
            raise SampleError("both a question and labels: VQA or classification, not both")
        if self.labels and (len(self.labels) < 2 or len(set(self.labels)) != len(self.labels)):
            raise SampleError("label_set needs at least two different labels and no repeats")
        if self.labels and self.answer not in self.labels:
            raise SampleError("label is not in label_set")

    @property
    def cluster(self) -> Hashable:
        """Return what the samples have in common that are right and wrong together: the group, or else the image."""
        return self.image if self.group is None else (self.dataset, self.group)

    @property
    def kind(self) -> Kind:
        if self.labels:
            return "classification"
        return "caption" if self.question is None else "vqa"
