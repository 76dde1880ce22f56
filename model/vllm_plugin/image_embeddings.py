"""Copy image embeddings for vLLM's encoder cache without fragmenting the heap.

vLLM caches thousands of these tensors for different times. A view would keep its whole batch alive. Copies on the main
heap would lie between activations of megabytes and fragment it: the engine grew by 738 MiB for 256 MiB of embeddings.
glibc gives every thread its own heap, so a separate thread makes the copies.
"""

from concurrent.futures import ThreadPoolExecutor

import torch


class ImageEmbeddings:
    """Makes the copies; one object for each model."""

    def __init__(self) -> None:
        # The thread starts with the first images.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="image-embeddings")

    def copies(self, embeddings_NID: torch.Tensor) -> list[torch.Tensor]:
        """Return the embeddings [I, D] of each of N images, with I tokens each, as tensors of their own memory."""
        if embeddings_NID.device.type != "cpu":
            return _copies(embeddings_NID)
        return self._thread.submit(_copies, embeddings_NID).result()


# Inference mode belongs to a thread; the caller's does not apply here.
@torch.inference_mode()
def _copies(embeddings_NID: torch.Tensor) -> list[torch.Tensor]:
    return [embeddings_ID.clone() for embeddings_ID in embeddings_NID]
