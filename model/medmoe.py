"""The whole model, on one device: pixels and token ids to logits, and a greedy decoder to compare others with."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DynamicCache

from medmoe.model.config import MedMoEConfig
from medmoe.model.language_model import build_language_model
from medmoe.model.projector import Projector
from medmoe.model.vision_tower import VisionTower


class MedMoE(nn.Module):
    """Vision tower, projector, and a decoder whose FFNs are partly MoE. Shapes: B batch, L length, D hidden."""

    def __init__(self, config: MedMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = VisionTower(config.vision_config)
        self.projector = Projector(config)
        self.language_model = build_language_model(config.text_config)

    def embed(self, input_ids: torch.Tensor, image_embeddings: torch.Tensor) -> torch.Tensor:
        """Token embeddings [B, L, D] with image embeddings [N, tokens, D] at the image tokens, in reading order.

        Raises ValueError when the number of image tokens and of image embeddings differ.
        """
        places = input_ids == self.config.image_token_id
        # The image token need not have a row; whichever is looked up is overwritten.
        embedded: torch.Tensor = self.language_model.get_input_embeddings()(input_ids.masked_fill(places, 0))
        rows = image_embeddings.reshape(-1, image_embeddings.shape[-1])
        if int(places.sum()) != len(rows):
            raise ValueError(f"the prompts hold {int(places.sum())} image tokens, the images {len(rows)} embeddings")
        return embedded.masked_scatter(places[..., None], rows.to(embedded.dtype))

    def hidden_states(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        features: torch.Tensor,
        *,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Decoder output [B, L, D] after its final norm, from tower features [N, patches, vision hidden].

        `attention_mask` marks tokens [B, L], or says of each query which keys it sees, bool [B, 1, L, L];
        `position_ids` [B, L] count from the left where they are not given.
        """
        embedded = self.embed(input_ids, self.projector(features))
        output = self.language_model.model(
            inputs_embeds=embedded, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor
    ) -> torch.Tensor:
        """Logits [B, L, V] for expanded prompts and their pixels [N, 3, size, size]."""
        hidden = self.hidden_states(input_ids, attention_mask, self.vision_tower(pixel_values))
        logits: torch.Tensor = self.language_model.lm_head(hidden)
        return logits

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], features: torch.Tensor, *, max_tokens: int) -> list[list[int]]:
        """Greedy continuation of each expanded prompt; ids up to and including end-of-sequence.

        `features` are the tower's, one image a prompt, in the prompts' order. Prompts are padded on the left.
        """
        text = self.config.text_config
        device = features.device
        width = max(map(len, prompts))
        input_ids = torch.full((len(prompts), width), text.pad_token_id, device=device)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, width - len(prompt) :] = 1
        embedded = self.embed(input_ids, self.projector(features))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.language_model.config)
        answers: list[list[int]] = [[] for _ in prompts]
        alive = list(range(len(prompts)))
        for _ in range(max_tokens):
            output = self.language_model.model(
                inputs_embeds=embedded,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            best = self.language_model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)
            for row in alive:
                answers[row].append(int(best[row]))
            alive = [row for row in alive if answers[row][-1] != text.eos_token_id]
            if not alive:
                break
            embedded = self.language_model.get_input_embeddings()(best[:, None])
            mask = torch.cat([mask, torch.ones_like(best[:, None])], dim=1)
            positions = positions[:, -1:] + 1
        return answers
