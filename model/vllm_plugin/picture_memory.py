"""What the engine keeps of pictures, apart from what comes and goes.

vLLM keeps thousands of these tensors, each for another while (`Settings.picture_cache_mib`). As views each would hold
its whole batch. As copies in the heap they would lie between activations of megabytes, which then no longer fit where
they lay before: the engine grew by 738 MiB for 256. glibc gives every thread a heap of its own, so a thread makes them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch


class PictureMemory:
    """One for each model; begins its thread with the first pictures, so that it can be made before a fork."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def copies(self, embeddings: torch.Tensor) -> Sequence[torch.Tensor]:
        """[N, num_image_tokens, D] -> N tensors that share memory with nothing."""
        if embeddings.device.type != "cpu":
            return _copies(embeddings)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="picture-memory")
        return self._thread.submit(_copies, embeddings).result()


# Its own, because the caller's mode is that of the caller's thread.
@torch.inference_mode()
def _copies(embeddings: torch.Tensor) -> list[torch.Tensor]:
    return [one.clone() for one in embeddings]
