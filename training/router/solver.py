"""Solve for the linear layer that becomes every gate, from pooled hidden states and their modality."""

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.training.config import RouterConfig

_MOST_STEPS = 500


def solve_router(inputs: torch.Tensor, targets: torch.Tensor, *, config: RouterConfig, seed: int) -> nn.Linear:
    """Return a linear layer with bias from `inputs` [N, D] to one logit a domain; `targets` [N] are the domains'
    numbers.

    `seed` draws the start and the order of the solver adam; lbfgs has neither.
    """
    if config.solver == "lbfgs":
        return _solve_lbfgs(inputs, targets, config=config)
    return _train_adam(inputs, targets, config=config, seed=seed)


def _train_adam(inputs: torch.Tensor, targets: torch.Tensor, *, config: RouterConfig, seed: int) -> nn.Linear:
    """Train with Adam for some epochs, as upstream does."""
    generator = torch.Generator().manual_seed(seed)
    router = nn.Linear(inputs.shape[1], len(config.domains))
    with torch.no_grad():
        router.weight.normal_(std=0.02, generator=generator)
        router.bias.zero_()
    optimizer = torch.optim.Adam(router.parameters(), lr=config.learning_rate)
    for _ in range(config.epochs):
        order = torch.randperm(len(inputs), generator=generator)
        for rows in order.split(config.batch_size):
            loss = F.cross_entropy(router(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return router


def _solve_lbfgs(inputs: torch.Tensor, targets: torch.Tensor, *, config: RouterConfig) -> nn.Linear:
    """Return the unique minimum of cross-entropy and L2 penalty.

    It is solved on standardised features, so that the penalty does not depend on their scales; the returned layer takes
    features as they are.
    """
    centre, scale = inputs.mean(dim=0), inputs.std(dim=0).clamp_min(1e-6)
    standardised = (inputs - centre) / scale
    router = nn.Linear(inputs.shape[1], len(config.domains))
    with torch.no_grad():
        router.weight.zero_()
        router.bias.zero_()
    optimizer = torch.optim.LBFGS(router.parameters(), max_iter=_MOST_STEPS, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(router(standardised), targets) + config.l2 / 2 * router.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    with torch.no_grad():
        router.weight.div_(scale)
        router.bias.sub_(router.weight @ centre)
    return router
