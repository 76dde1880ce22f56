"""Ask the service from Python, blocking or with asyncio: `Client().ask("ct.jpg", "What is shown?")`.

The client shares no code with the service; a test compares its types with the OpenAPI document.
"""

if __name__ != "medmoe.client":  # an editable install finds the folder below medmoe.server too
    raise ImportError("import medmoe.client")

from medmoe.client.answers import (
    CheckpointStatus,
    ChoiceAnswer,
    ChoiceClassification,
    Classification,
    Decision,
    Delta,
    Explanation,
    Health,
    InstanceInfo,
    Metadata,
    ModelInfo,
    ModelList,
    MultiLabelClassification,
    PredicateAnswer,
    RefusalAnswer,
    RenderedImage,
    RouterStats,
    Routing,
    ScoreAnswer,
    SeriesAnswer,
    SeriesClassification,
    SeriesInfo,
    SeriesStarted,
    SliceDone,
    SourceInfo,
    StoredReport,
    StudyInfo,
    VqaAnswer,
)
from medmoe.client.async_client import AsyncClient
from medmoe.client.client import Client
from medmoe.client.errors import (
    BadRequest,
    CertificateError,
    ClientError,
    ConnectionFailed,
    InvalidInput,
    Overloaded,
    ServiceError,
    ServiceFailed,
    ServiceTimeout,
    ServiceUnavailable,
    Timeout,
    Unauthorized,
    UnexpectedAnswer,
)
from medmoe.client.images.image import Image
from medmoe.client.images.instance import Instance
from medmoe.client.images.series import Series
from medmoe.client.questions import Choice, Predicate, Score
from medmoe.client.transport.retry import Retry

__all__ = [
    "AsyncClient",
    "BadRequest",
    "CertificateError",
    "CheckpointStatus",
    "Choice",
    "ChoiceAnswer",
    "ChoiceClassification",
    "Classification",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Decision",
    "Delta",
    "Explanation",
    "Health",
    "Image",
    "Instance",
    "InstanceInfo",
    "InvalidInput",
    "Metadata",
    "ModelInfo",
    "ModelList",
    "MultiLabelClassification",
    "Overloaded",
    "Predicate",
    "PredicateAnswer",
    "RefusalAnswer",
    "RenderedImage",
    "Retry",
    "RouterStats",
    "Routing",
    "Score",
    "ScoreAnswer",
    "Series",
    "SeriesAnswer",
    "SeriesClassification",
    "SeriesInfo",
    "SeriesStarted",
    "ServiceError",
    "ServiceFailed",
    "ServiceTimeout",
    "ServiceUnavailable",
    "SliceDone",
    "SourceInfo",
    "StoredReport",
    "StudyInfo",
    "Timeout",
    "Unauthorized",
    "UnexpectedAnswer",
    "VqaAnswer",
]
