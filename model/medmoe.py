"""Compute the whole model on one device: pixels and token ids to logits, and greedy generation as a reference.

Shape letters: B prompts, L length, D hidden size, V vocabulary, N images, P patches, C width of the vision tower,
I tokens of an image, S side of an image in pixels.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DynamicCache

from medmoe.model.config import MedMoEConfig
from medmoe.model.language_model import build_language_model
from medmoe.model.projector import Projector
from medmoe.model.vision_tower import VisionTower


class MedMoE(nn.Module):
    """Vision tower, projector, and a decoder whose FFNs are partly MoE."""

    def __init__(self, config: MedMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_tower = VisionTower(config.vision_config)
        self.projector = Projector(config)
        self.language_model = build_language_model(config.text_config)

    def embed(self, input_ids: torch.Tensor, images_NID: torch.Tensor) -> torch.Tensor:
        """Return embeddings [B, L, D] of ids [B, L] with those of images [N, I, D] at the image tokens, in order.

        Raises ValueError when the number of image tokens and of image embeddings differ.
        """
        is_image_BL = input_ids == self.config.image_token_id
        # The image token need not have a row; whichever is looked up is overwritten.
        embedded_BLD: torch.Tensor = self.language_model.get_input_embeddings()(input_ids.masked_fill(is_image_BL, 0))
        rows = images_NID.flatten(0, -2)
        if int(is_image_BL.sum()) != len(rows):
            raise ValueError(
                f"the prompts hold {int(is_image_BL.sum())} image tokens, the images {len(rows)} embeddings"
            )
        return embedded_BLD.masked_scatter(is_image_BL[..., None], rows.to(embedded_BLD.dtype))

    def hidden_states(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        features_NPC: torch.Tensor,
        *,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the decoder's output [B, L, D] after its final norm, from token ids [B, L] and features [N, P, C].

        `attention_mask` marks tokens [B, L], or says of each query which keys it sees, bool [B, 1, L, L];
        `position_ids` [B, L] count from the left where they are not given.
        """
        embedded_BLD = self.embed(input_ids, self.projector(features_NPC))
        output = self.language_model.model(
            inputs_embeds=embedded_BLD, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        hidden_BLD: torch.Tensor = output.last_hidden_state
        return hidden_BLD

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor
    ) -> torch.Tensor:
        """Return logits [B, L, V] for expanded prompts [B, L] and their pixels [N, 3, S, S]."""
        hidden_BLD = self.hidden_states(input_ids, attention_mask, self.vision_tower(pixel_values))
        logits_BLV: torch.Tensor = self.language_model.lm_head(hidden_BLD)
        return logits_BLV

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], features_NPC: torch.Tensor, *, max_tokens: int
    ) -> list[list[int]]:
        """Return the greedy continuation of each expanded prompt: ids up to and including end-of-sequence.

        `features_NPC`: the tower's features [N, P, C], one image for each prompt. Prompts are padded on the left.
        """
        text = self.config.text_config
        device = features_NPC.device
        width = max(map(len, prompts))
        ids_BL = torch.full((len(prompts), width), text.pad_token_id, device=device)
        mask_BL = torch.zeros_like(ids_BL)
        for row, prompt in enumerate(prompts):
            ids_BL[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
            mask_BL[row, width - len(prompt) :] = 1
        embedded_BLD = self.embed(ids_BL, self.projector(features_NPC))
        positions_BL = (mask_BL.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self.language_model.config)
        answers: list[list[int]] = [[] for _ in prompts]
        alive = list(range(len(prompts)))
        for _ in range(max_tokens):
            output = self.language_model.model(
                inputs_embeds=embedded_BLD,
                attention_mask=mask_BL,
                position_ids=positions_BL,
                past_key_values=cache,
                use_cache=True,
            )
            best_B = self.language_model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)
            for row in alive:
                answers[row].append(int(best_B[row]))
            alive = [row for row in alive if answers[row][-1] != text.eos_token_id]
            if not alive:
                break
            embedded_BLD = self.language_model.get_input_embeddings()(best_B[:, None])
            mask_BL = torch.cat([mask_BL, torch.ones_like(best_B[:, None])], dim=1)
            positions_BL = positions_BL[:, -1:] + 1
        return answers
