"""Score images by their tower features while vLLM computes their embeddings, and send the scores to the service."""

from pathlib import Path
from typing import Self

import torch
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_rank

from medmoe.model.unlike_training.score_pipe import SCORE_PIPE, ScoreWriter
from medmoe.model.unlike_training.scorer import UnlikeTraining


class ImageScoring:
    """Callable; one object for each model."""

    def __init__(self, unlike_training: UnlikeTraining, writer: ScoreWriter) -> None:
        self._unlike_training = unlike_training
        self._writer = writer

    @classmethod
    def of(cls, vllm_config: VllmConfig, unlike_training: UnlikeTraining | None) -> Self | None:
        """Return a scorer; None without a reference or a pipe, and on tensor-parallel ranks but the first."""
        path = vllm_config.additional_config.get(SCORE_PIPE)
        if unlike_training is None or path is None or get_tensor_model_parallel_rank() != 0:
            return None
        return cls(unlike_training, ScoreWriter(Path(path)))

    def __call__(self, features_NPC: torch.Tensor, image_ids: torch.Tensor | list[torch.Tensor] | None) -> None:
        """Send the score of each of N images; `image_ids`, uint8 [N, 32]. Images without ids are not scored."""
        if image_ids is None:
            return
        scores = self._unlike_training.to(features_NPC.device)(features_NPC).tolist()
        self._writer.write((bytes(image_id.tolist()), score) for image_id, score in zip(image_ids, scores, strict=True))
