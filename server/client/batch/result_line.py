"""Build the output line of a task.

Ids, timings and usage are left out: a resumed run must write the same file as an uninterrupted one.
"""

from typing import Any

from medmoe.client.answers.classify import AnyClassification
from medmoe.client.answers.vqa import VqaAnswer
from medmoe.client.batch.task import Task
from medmoe.client.errors import ClientError, ServiceError

Line = dict[str, Any]
KEY, RESULT, ERROR = "key", "result", "error"
_VARYING = {"id", "timings", "usage"}


def answered(task: Task, answer: VqaAnswer | AnyClassification) -> Line:
    """Return the line of an answer."""
    return _head(task) | {RESULT: answer.model_dump(mode="json", exclude=_VARYING), ERROR: None}


def failed(task: Task, error: ClientError) -> Line:
    """Return the line of an error."""
    if isinstance(error, ServiceError):
        told = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
    else:
        told = {"type": "client_error", "code": _snake(type(error).__name__), "message": str(error), "param": None}
    return _head(task) | {RESULT: None, ERROR: told}


def _head(task: Task) -> Line:
    return {
        KEY: task.key,
        "id": task.id,
        "image": task.image,
        "question": task.question,
        "labels": None if task.labels is None else list(task.labels),
    }


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
