"""Find the tasks whose image is another one than the image that was answered."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from medmoe.client.batch.runner import Load
from medmoe.client.batch.task import Task
from medmoe.client.errors import InvalidInput

_READERS = 8


def with_another_image(tasks: Iterable[Task], answered: Mapping[str, str], *, load: Load) -> frozenset[str]:
    """Return the keys of the tasks whose image has another SHA-256 than `answered` holds for the key.

    A task is known by the name of its image, and exports of several studies repeat names. An image that cannot be read
    keeps its answer.
    """

    def is_another(task: Task) -> bool:
        try:
            return hashlib.sha256(load(task).data).hexdigest() != answered[task.key]
        except InvalidInput:
            return False

    known = [task for task in tasks if task.key in answered]
    with ThreadPoolExecutor(_READERS) as readers:
        return frozenset(task.key for task, found in zip(known, readers.map(is_another, known), strict=True) if found)
