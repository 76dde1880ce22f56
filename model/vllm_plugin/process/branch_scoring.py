"""Score many continuations of one prompt in one forward pass over the tree of their tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.forward_context import set_forward_context

from medmoe.model.vllm_plugin.cpu.tree_attention import ancestors, tree_attention


class BranchScoring:
    """Extend vLLM's CPU worker; the service calls the method by its name."""

    model_runner: Any

    @torch.inference_mode()
    def score_branches(
        self,
        token_ids: Sequence[int],
        parents: Sequence[int],
        image: str,
        wanted: Sequence[tuple[int, Sequence[int]]],
    ) -> tuple[list[list[float]], list[bytes]] | None:
        """Return log-probabilities of next tokens, and the experts of the tokens before them.

        `parents` holds the row of the token before each of `token_ids`, -1 for none. `image` is the identifier of the
        image whose embeddings stand for the image tokens. Each of `wanted` is a row with the tokens to score after it;
        its experts are int32 [layers, top_k], empty for a dense model. None when vLLM has freed the embeddings.
        """
        runner = self.model_runner
        embeddings = runner.encoder_cache.get(image)
        if embeddings is None:
            return None
        model = runner.model
        ids = torch.tensor(token_ids)
        seen_TT = torch.from_numpy(ancestors(parents))
        is_image = torch.zeros_like(ids, dtype=torch.bool)
        # A model may generate the token that stands for the image: only the first ones do.
        first = token_ids.index(model.medmoe.image_token_id)
        is_image[first : first + len(embeddings)] = True
        inputs_TD = model.embed_input_ids(ids, multimodal_embeddings=[embeddings], is_multimodal=is_image)
        with tree_attention(model, seen_TT), set_forward_context(None, runner.vllm_config, num_tokens=len(ids)):
            hidden_TD = model(None, seen_TT.sum(dim=1) - 1, inputs_embeds=inputs_TD)
        rows = torch.tensor([row for row, _ in wanted])
        log_probs = model.compute_logits(hidden_TD[rows]).log_softmax(dim=-1, dtype=torch.float32)
        experts = [b""] * len(rows)
        if runner.routed_experts_initialized:
            chosen = runner.routed_experts_capturer.get_device_buffer()[rows].numpy()
            experts = [row.tobytes() for row in chosen]
        return [log_probs[row, list(tokens)].tolist() for row, (_, tokens) in enumerate(wanted)], experts
