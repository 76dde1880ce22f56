"""What the engine keeps of pictures, apart from what comes and goes.

vLLM keeps thousands of these tensors, each for another while (`Settings.encoder_cache_mib`). As views each would hold
its whole batch. As copies in the heap they would lie between activations of megabytes, which then no longer fit where
they lay before: the engine grew by 738 MiB for 256. glibc gives every thread a heap of its own, so a thread makes them.
"""

from concurrent.futures import ThreadPoolExecutor

import torch


class ImageEmbeddings:
    """One for each model."""

    def __init__(self) -> None:
        # It begins with the first pictures.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="picture-memory")

    def copies(self, embeddings: torch.Tensor) -> list[torch.Tensor]:
        """[N, num_image_tokens, D] -> N tensors that share memory with nothing."""
        if embeddings.device.type != "cpu":
            return _copies(embeddings)
        return self._thread.submit(_copies, embeddings).result()


# Its own, because the caller's mode is that of the caller's thread.
@torch.inference_mode()
def _copies(embeddings: torch.Tensor) -> list[torch.Tensor]:
    return [one.clone() for one in embeddings]
