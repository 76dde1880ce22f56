"""Record the experts that the tokens of each prompt in a batch are sent to."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.nn import functional as F

from medmoe.model.medmoe import MedMoE
from medmoe.model.moe import Router
from medmoe.training.evaluation.prediction import PromptRouting

_LAYER = 3  # language_model.model.layers.N.mlp.gate


class RoutingRecorder:
    """Read the routers' choices; a dense model has none and gives None for every prompt."""

    def __init__(self, model: MedMoE) -> None:
        self._routers = {
            int(name.split(".")[_LAYER]): module for name, module in model.named_modules() if isinstance(module, Router)
        }
        self._domains = model.config.expert_domains
        self._experts = model.config.text_config.num_experts

    @contextmanager
    def prompts(self, mask: torch.Tensor, *, image: torch.Tensor) -> Iterator[list[PromptRouting | None]]:
        """Record a batch's first forward; on exit the list has one entry for each row of `mask` [B, L].

        `image` [B, L] says which of the tokens are the image's.

        Only the first call of each router counts: what follows are the answers' tokens. Padding counts nowhere.
        """
        found: dict[int, torch.Tensor] = {}
        masks = torch.stack([mask, mask * image])
        hooks = [
            router.register_forward_hook(partial(self._count, found=found, layer=layer, masks=masks))
            for layer, router in self._routers.items()
        ]
        rows: list[PromptRouting | None] = []
        try:
            yield rows
        finally:
            for hook in hooks:
                hook.remove()
        counts = {layer: table.tolist() for layer, table in sorted(found.items())}
        for row in range(len(mask)):
            layers, of_image = (
                {layer: tuple(table[which][row]) for layer, table in counts.items()} for which in range(len(masks))
            )
            rows.append(PromptRouting(expert_domains=self._domains, layers=layers, image=of_image) if layers else None)

    def _count(
        self,
        _router: torch.nn.Module,
        _inputs: object,
        output: tuple[torch.Tensor, torch.Tensor],
        *,
        found: dict[int, torch.Tensor],
        layer: int,
        masks: torch.Tensor,
    ) -> None:
        """Count tokens by expert under each of `masks` [M, B, L]; returns [M, B, E]."""
        if layer not in found:
            chosen = F.one_hot(output[1], self._experts).sum(dim=1).view(*masks.shape[1:], self._experts)
            found[layer] = (chosen * masks[..., None]).sum(dim=2)
