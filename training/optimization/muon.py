"""Muon for the weight matrices inside the network, AdamW for everything else, as one optimizer.

Muon (Jordan et al. 2024; torch.optim.Muon) moves a matrix by its orthogonalised momentum, so that directions with small
gradients move as far as the large ones. It is for hidden layers' matrices: embeddings, output head, gates, norms and
biases are left to AdamW. Trainer knows one optimizer, with one list of parameter groups and one state.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon

Named = Iterable[tuple[str, nn.Parameter]]
# Linear layers all; norms within attention (StableLM's, per head) are vectors.
_HIDDEN = re.compile(r"(.*\.)?(projector\.linear_[12]|layers\.\d+\.(self_attn|mlp)\.(.+\.)?[a-z0-9_]+)\.weight")
_GATE = re.compile(r".*\.mlp\.(gate|coefficient)\.weight")


def is_hidden_matrix(name: str) -> bool:
    """Whether Muon moves it: a matrix of an attention, FFN, expert or projector."""
    return bool(_HIDDEN.fullmatch(name)) and not _GATE.fullmatch(name)


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that share this one's `param_groups` and `state`."""

    def __init__(self, parameters: Named, *, lr: float, weight_decay: float, decayed: Iterable[str], **adamw: Any):
        """`decayed`: names of the parameters that decay; hidden matrices always do. `adamw` are AdamW's own options.

        Both get the same learning rate: Muon's steps are scaled to the root mean square of AdamW's (Liu et al. 2025,
        arXiv 2502.16982). Raises ValueError when there is nothing for Muon to move.
        """
        named, decayed = list(parameters), set(decayed)
        hidden = [parameter for name, parameter in named if is_hidden_matrix(name)]
        if not hidden:
            raise ValueError("muon moves hidden matrices, and none of these parameters is one")
        rest = [(name, parameter) for name, parameter in named if not is_hidden_matrix(name)]
        groups = [
            {"params": [parameter for name, parameter in rest if (name in decayed) is decays], "weight_decay": decay}
            for decays, decay in ((True, weight_decay), (False, 0.0))
        ]
        self._muon = Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW([group for group in groups if group["params"]] or [{"params": []}], lr=lr, **adamw)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {"lr": lr})
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Raises ValueError for a closure, which neither Trainer nor a stage has."""
        if closure is not None:
            raise ValueError("a closure would be evaluated twice")
        self._muon.step()
        self._adamw.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self._muon.state = self._adamw.state = self.state
