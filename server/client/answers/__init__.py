"""Define the models of the service's answers."""

from medmoe.client.answers.checkpoint import CheckpointStatus
from medmoe.client.answers.classify import (
    AnyClassification,
    ChoiceClassification,
    Classification,
    Mode,
    MultiLabelClassification,
)
from medmoe.client.answers.decisions import ChoiceAnswer, Decision, PredicateAnswer, RefusalAnswer, ScoreAnswer
from medmoe.client.answers.explain import Explanation
from medmoe.client.answers.metadata import Health, Metadata, ModelInfo, ModelList
from medmoe.client.answers.render import RenderedImage
from medmoe.client.answers.router_stats import RouterStats
from medmoe.client.answers.series import (
    SeriesAnswer,
    SeriesClassification,
    SeriesEvent,
    SeriesStarted,
    SliceDone,
)
from medmoe.client.answers.sources import InstanceInfo, SeriesInfo, SourceInfo, StudyInfo
from medmoe.client.answers.vqa import Delta, Routing, StoredReport, VqaAnswer

__all__ = [
    "AnyClassification",
    "CheckpointStatus",
    "ChoiceAnswer",
    "ChoiceClassification",
    "Classification",
    "Decision",
    "Delta",
    "Explanation",
    "Health",
    "InstanceInfo",
    "Metadata",
    "Mode",
    "ModelInfo",
    "ModelList",
    "MultiLabelClassification",
    "PredicateAnswer",
    "RefusalAnswer",
    "RenderedImage",
    "RouterStats",
    "Routing",
    "ScoreAnswer",
    "SeriesAnswer",
    "SeriesClassification",
    "SeriesEvent",
    "SeriesInfo",
    "SeriesStarted",
    "SliceDone",
    "SourceInfo",
    "StoredReport",
    "StudyInfo",
    "VqaAnswer",
]
