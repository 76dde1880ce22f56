"""A client of the service, blocking and for asyncio: `Client("http://127.0.0.1:8000").ask("ct.jpg", "What is shown?")`.

It shares no code with the service, only the promise of its /docs, which a test compares field by field.
"""

if __name__ != "medmoe.client":  # an editable install finds the folder below medmoe.server too
    raise ImportError("import medmoe.client")

from medmoe.client.answers.classify import ChoiceClassification, Classification, MultiLabelClassification
from medmoe.client.answers.metadata import Health, Metadata, ModelInfo, ModelList
from medmoe.client.answers.router_stats import RouterStats
from medmoe.client.answers.vqa import Delta, Routing, VqaAnswer
from medmoe.client.async_client import AsyncClient
from medmoe.client.client import Client
from medmoe.client.errors import (
    ClientError,
    InvalidInput,
    NoConnection,
    OutOfTime,
    RequestRefused,
    ServiceError,
    ServiceFailed,
    ServiceFull,
    ServiceTimeout,
    ServiceUnavailable,
    Unauthorized,
    UnexpectedAnswer,
)
from medmoe.client.images.image import Picture
from medmoe.client.transport.retry import Retry

__all__ = [
    "AsyncClient",
    "ChoiceClassification",
    "Classification",
    "Client",
    "ClientError",
    "Delta",
    "Health",
    "InvalidInput",
    "Metadata",
    "ModelInfo",
    "ModelList",
    "MultiLabelClassification",
    "NoConnection",
    "OutOfTime",
    "Picture",
    "RequestRefused",
    "Retry",
    "RouterStats",
    "Routing",
    "ServiceError",
    "ServiceFailed",
    "ServiceFull",
    "ServiceTimeout",
    "ServiceUnavailable",
    "Unauthorized",
    "UnexpectedAnswer",
    "VqaAnswer",
]
