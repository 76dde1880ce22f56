"""The slow, obvious model's account of what the engine should have said about one prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medmoe.model.checkpoint.io import load_checkpoint
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.lora.checkpoint import has_adapter, load_trainable
from medmoe.model.medmoe import MedMoE
from medmoe.model.moe import Router
from medmoe.model.prompt import Prompt

# The engine beside us has the cores.
torch.set_num_threads(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One full forward over prompt and answer."""

    log_probs: torch.Tensor
    """[answer tokens, V]: what the model thought where each answer token was generated."""
    experts: np.ndarray
    """[prompt + answer - 1, layers, K]: the router's choices, best first; zeros at dense layers, as in the engine's."""


class Reference:
    """The checkpoint in the reference implementation, on one thread-safe copy."""

    def __init__(self, checkpoint: Path, *, model: MedMoE | None = None) -> None:
        """With `model`, that checkpoint's own, somebody else has decided where and in what numbers it computes."""
        self.model = _load(checkpoint) if model is None else model
        self.prompt = Prompt.from_directory(checkpoint, self.model.config)
        self._processor = ImageProcessor.from_config(self.model.config)

    def features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        pixels = torch.stack([torch.from_numpy(self._processor(image)) for image in images])
        return self.model.vision_tower(pixels.to(self._device))

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def generate(self, questions: Sequence[str], images: Sequence[Image.Image], *, max_tokens: int) -> list[list[int]]:
        prompts = [self.prompt.expand(self.prompt.question(question)) for question in questions]
        return self.model.generate(prompts, self.features(images), max_tokens=max_tokens)

    @torch.inference_mode()
    def trace(self, question: str, image: Image.Image, *, answer: Sequence[int]) -> Trace:
        before = self.prompt.expand(self.prompt.question(question))
        # Embedded apart: a random model may well generate the image token, which then is no image.
        image_embeddings = self.model.projector(self.features([image]))
        given = self.model.embed(torch.tensor([before], device=self._device), image_embeddings)
        answered = torch.tensor([answer[:-1]], dtype=torch.long, device=self._device)
        generated = self.model.language_model.get_input_embeddings()(answered)
        text = self.model.config.text_config
        shape = (len(before) + len(answer) - 1, text.num_hidden_layers, text.num_experts_per_tok)
        experts = np.zeros(shape, dtype=np.int64)
        hooks = [
            module.register_forward_hook(_record(experts, layer=int(name.split(".")[3])))
            for name, module in self.model.named_modules()
            if isinstance(module, Router)
        ]
        try:
            output = self.model.language_model.model(inputs_embeds=torch.cat([given, generated], dim=1))
        finally:
            for hook in hooks:
                hook.remove()
        logits = self.model.language_model.lm_head(output.last_hidden_state[0, len(before) - 1 :])
        return Trace(log_probs=logits.float().log_softmax(-1).cpu(), experts=experts)


def _load(checkpoint: Path) -> MedMoE:
    if not has_adapter(checkpoint):
        return load_checkpoint(checkpoint)
    # As they are trained: the engine computes them in another way.
    model, _ = load_trainable(checkpoint)
    return model.eval()


def _record(experts: np.ndarray, *, layer: int):  # type: ignore[no-untyped-def]
    def hook(_module: Router, _inputs: object, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        experts[:, layer] = output[1].cpu().numpy()

    return hook
