"""Optimize weight matrices inside the network by Muon and all other parameters by AdamW.

Muon (Jordan et al. 2024) moves a matrix by its orthogonalised momentum, so that directions with small gradients move as
far as the large ones. It is for hidden layers' matrices: embeddings, output head, gates, norms and biases are left to
AdamW. Trainer knows one optimizer, with one list of parameter groups and one state.

torch.optim.Muon is the reference that the tests hold this one to. It orthogonalises in bfloat16, one matrix after the
other: on a CPU without bfloat16 of its own that takes most of a step's time.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

Named = Iterable[tuple[str, nn.Parameter]]
# Linear layers all; norms within attention (StableLM's, per head) are vectors.
_HIDDEN = re.compile(r"(.*\.)?(projector\.linear_[12]|layers\.\d+\.(self_attn|mlp)\.(.+\.)?[a-z0-9_]+)\.weight")
_GATE = re.compile(r".*\.mlp\.(gate|coefficient)\.weight")
_MOMENTUM = 0.95
# A quintic that pulls every singular value to about 1 within five rounds.
_ROUNDS, _A, _B, _C = 5, 3.4445, -4.7750, 2.0315


def is_hidden_matrix(name: str) -> bool:
    """Return whether Muon moves it: a matrix of an attention, FFN, expert or projector."""
    return bool(_HIDDEN.fullmatch(name)) and not _GATE.fullmatch(name)


def orthogonalized(matrices: torch.Tensor, *, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return `matrices` (n, rows, columns) with all singular values near 1, by Newton-Schulz iteration in their own
    dtype.

    In bfloat16 on a GPU, which is what the iteration was made for; on a CPU in `dtype`.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else dtype)
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to the root mean square of AdamW's steps; decoupled weight decay.

    Liu et al. 2025 (arXiv 2502.16982); the same as torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype`: what a CPU orthogonalises in."""
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step. `closure` is not called; see MuonWithAdamW."""
        for group in self.param_groups:
            for shape, matrices in self._by_shape(group["params"]).items():
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                momenta = torch.stack([self._momentum(matrix) for matrix in matrices])
                steps = orthogonalized(momenta, dtype=self._dtype)
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-rate)

    def _momentum(self, matrix: nn.Parameter) -> torch.Tensor:
        assert matrix.grad is not None
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix.grad)
        momentum: torch.Tensor = state["momentum_buffer"]
        momentum.lerp_(matrix.grad, 1 - _MOMENTUM)
        return matrix.grad.lerp(momentum, _MOMENTUM)

    @staticmethod
    def _by_shape(matrices: Iterable[nn.Parameter]) -> dict[torch.Size, list[nn.Parameter]]:
        """Group the parameters that have a gradient by shape."""
        grouped: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            if matrix.grad is not None:
                grouped.setdefault(matrix.shape, []).append(matrix)
        return grouped


class MuonWithAdamW(torch.optim.Optimizer):
    """Combine two optimizers that share this one's `param_groups` and `state`."""

    def __init__(
        self,
        parameters: Named,
        *,
        lr: float,
        weight_decay: float,
        decayed: Iterable[str],
        dtype: torch.dtype = torch.float32,
        **adamw: Any,
    ):
        """`decayed`: names of the parameters that decay; hidden matrices always do. `dtype` is Muon's, `adamw` are
        AdamW's own options.

        Both get the same learning rate. Raises ValueError when there is nothing for Muon to move.
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
        self._muon = Muon(hidden, lr=lr, weight_decay=weight_decay, dtype=dtype)
        self._adamw = AdamW([group for group in groups if group["params"]] or [{"params": []}], lr=lr, **adamw)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {"lr": lr})
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Raise ValueError for a closure, which neither Trainer nor a stage has."""
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
