"""The linear router: both solvers classify, and lbfgs finds the optimum that it is documented to find."""

import pytest
import torch
from torch.nn import functional as F

from medmoe.training.config import DataConfig, RouterConfig
from medmoe.training.router.solver import solve_router

DOMAINS = ("CT", "MRI", "X-ray")


def config(**changes: object) -> RouterConfig:
    data = (DataConfig(dataset="any", source="modality"),)
    return RouterConfig(data=data, held_out=(), domains=DOMAINS, per_domain=9, **changes)  # type: ignore[arg-type]


def blobs(*, spread: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clouds in 8 dimensions, whose scales differ by a thousand."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(240) % 3
    centres = torch.randn(3, 8, generator=generator)
    inputs = centres[targets] + spread * torch.randn(240, 8, generator=generator)
    return inputs * torch.logspace(-1.5, 1.5, 8) + 5, targets


@pytest.mark.parametrize("changes", [{"solver": "adam", "epochs": 200, "learning_rate": 1e-2}, {"solver": "lbfgs"}])
def test_it_tells_separable_domains_apart(changes: dict[str, object]) -> None:
    inputs, targets = blobs(spread=0.1)
    router = solve_router(inputs, targets, config=config(**changes), seed=1)
    assert (router(inputs).argmax(dim=1) == targets).float().mean() > 0.98


def test_lbfgs_ends_where_the_penalised_loss_has_no_slope() -> None:
    inputs, targets = blobs(spread=1.0)
    l2 = 1e-2
    router = solve_router(inputs, targets, config=config(solver="lbfgs", l2=l2), seed=1)
    scale = inputs.std(dim=0)
    # In terms of the standardised features: their weights are ours times the scale.
    weight = (router.weight * scale).detach().requires_grad_()
    bias = (router.bias + router.weight @ inputs.mean(dim=0)).detach().requires_grad_()
    standardised = (inputs - inputs.mean(dim=0)) / scale
    loss = F.cross_entropy(F.linear(standardised, weight, bias), targets) + l2 / 2 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-3


def test_the_penalty_shrinks_and_the_seed_changes_nothing() -> None:
    inputs, targets = blobs(spread=1.0)
    loose, tight = (solve_router(inputs, targets, config=config(solver="lbfgs", l2=l2), seed=1) for l2 in (1e-4, 1.0))
    again = solve_router(inputs, targets, config=config(solver="lbfgs", l2=1.0), seed=2)
    assert tight.weight.norm() < loose.weight.norm() / 2
    assert torch.equal(tight.weight, again.weight)


def test_an_l2_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="lbfgs"):
        config(l2=0.1)
    with pytest.raises(ValueError, match="negative"):
        config(solver="lbfgs", l2=-1.0)
