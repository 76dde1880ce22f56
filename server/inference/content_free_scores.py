"""Score labels on images without content, once for each set of labels."""

import asyncio
from weakref import WeakValueDictionary

import numpy as np
from cachetools import LRUCache

from medmoe.model.classification.contextual_calibration import content_free_images, mean_log_likelihoods
from medmoe.server.engine.scoring.label_scorer import LabelScorer, ScoringRequest
from medmoe.server.imaging.image import image_id
from medmoe.server.tasks import run_all

_REMEMBERED = 1024
_Key = tuple[str | None, ScoringRequest]


class ContentFreeScores:
    """Remember the mean log-likelihoods of labels on content-free images, for one checkpoint."""

    def __init__(self, *, size: int) -> None:
        """`size`: width and height of the images, in pixels."""
        self._images = content_free_images(size)
        self._remembered: LRUCache[_Key, tuple[float, ...]] = LRUCache(_REMEMBERED)
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    async def mean(
        self, request: ScoringRequest, *, scorer: LabelScorer, request_id: str, cache_salt: str | None
    ) -> tuple[float, ...]:
        """Return the mean log-likelihood of each of the request's answers. Raises what `scorer` raises."""
        key = (cache_salt, request)
        async with self._locks.setdefault(key, asyncio.Lock()):
            found = self._remembered.get(key)
            if found is None:
                scores = await run_all(
                    scorer.score(
                        (request,),
                        image=np.asarray(image),
                        image_id=image_id(image.size, image.tobytes()),
                        request_id=f"{request_id}-content-free-{number}",
                        cache_salt=cache_salt,
                    )
                    for number, image in enumerate(self._images)
                )
                found = self._remembered[key] = mean_log_likelihoods([score.log_likelihoods for (score,) in scores])
            return found
