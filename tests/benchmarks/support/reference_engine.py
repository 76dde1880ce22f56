"""Answer the service's engine requests with the reference model in this process, one after the other."""

from collections.abc import AsyncIterator
from functools import lru_cache

import torch
from PIL import Image

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.medmoe import MedMoE
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import GenerationChunk, GenerationRequest
from medmoe.server.schemas.inference import Dtype


class ReferenceEngine:
    """Implement Engine; its numbers are those of the model in float32."""

    def __init__(self, model: MedMoE, prompt: Prompt) -> None:
        self._model = model.eval()
        self._prompt = prompt
        self._processor = ImageProcessor.from_config(model.config)
        self._images: dict[str, Image.Image] = {}
        # Each step of an answer asks about the same image.
        self._embedded = lru_cache(maxsize=8)(self._embed)

    @property
    def dtype(self) -> Dtype:
        return "float32"

    async def start(self) -> None:
        return None

    async def check_health(self) -> None:
        return None

    async def ping(self) -> None:
        return None

    async def kill(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def metrics(self) -> bytes:
        return b""

    def scores_branches(self, request: GenerationRequest) -> bool:
        """See Engine.scores_branches."""
        return False

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk]:
        text = self._model.config.text_config
        generated: list[int] = []
        logprobs: list[float] = []
        wanted: dict[int, float] = {}
        self._images[request.image_id] = request.image
        try:
            while len(generated) < request.max_tokens and text.eos_token_id not in generated:
                log_p = self._next((*request.prompt_ids, *generated), request.image_id)
                if not generated:
                    wanted = {token: float(log_p[token]) for token in request.logprob_token_ids}
                generated.append(int(log_p.argmax()))
                logprobs.append(float(log_p.max()))
        finally:
            self._images.pop(request.image_id, None)
        yield GenerationChunk(
            text=self._prompt.decode(generated),
            token_ids=tuple(generated),
            logprobs=tuple(logprobs),
            finish_reason="stop" if generated[-1] == text.eos_token_id else "length",
            num_prompt_tokens=len(self._prompt.expand(request.prompt_ids)),
            token_logprobs=wanted,
        )

    @torch.inference_mode()
    def _next(self, ids: tuple[int, ...], image_id: str) -> torch.Tensor:
        """Return the log-probabilities [V] of the token after `ids`."""
        expanded = torch.tensor([self._prompt.expand(ids)])
        embedded = self._model.embed(expanded, self._embedded(image_id))
        hidden = self._model.language_model.model(inputs_embeds=embedded).last_hidden_state
        logits: torch.Tensor = self._model.language_model.lm_head(hidden[0, -1])
        return logits.double().log_softmax(-1)

    def _embed(self, image_id: str) -> torch.Tensor:
        pixels = torch.from_numpy(self._processor(self._images[image_id]))[None]
        embedded: torch.Tensor = self._model.projector(self._model.vision_tower(pixels))
        return embedded
