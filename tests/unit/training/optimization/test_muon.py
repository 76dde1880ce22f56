"""Muon with AdamW is the two of them, each with its own parameters, for whoever knows one optimizer."""

import io

import pytest
import torch
from torch import nn

from medmoe.model.medmoe import MedMoE
from medmoe.training.optimization.muon import Muon, MuonWithAdamW, is_hidden_matrix, orthogonalized
from tests.support.checkpoints.tiny import tiny_config

Named = list[tuple[str, nn.Parameter]]


def parameters(seed: int = 0) -> Named:
    torch.manual_seed(seed)
    names = {
        "model.language_model.model.layers.0.mlp.up_proj.weight": (6, 4),
        "model.projector.linear_1.weight": (3, 6),
        "model.language_model.model.embed_tokens.weight": (9, 4),
        "model.projector.linear_1.bias": (3,),
    }
    return [(name, nn.Parameter(torch.randn(shape))) for name, shape in names.items()]


def optimizer(named: Named) -> MuonWithAdamW:
    decayed = [name for name, parameter in named if parameter.dim() > 1]
    return MuonWithAdamW(named, lr=0.01, weight_decay=0.1, decayed=decayed, betas=(0.9, 0.99))


def learn(named: Named, *optimizers: torch.optim.Optimizer, steps: int, seed: int = 1) -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for _, parameter in named:
            parameter.grad = torch.randn(parameter.shape, generator=drawn)
        for one in optimizers:
            one.step()
    return [parameter.detach().clone() for _, parameter in named]


def test_it_moves_parameters_as_the_two_optimizers_do() -> None:
    named, apart = parameters(), parameters()
    found = learn(named, optimizer(named), steps=3)
    up, projector, words, bias = (parameter for _, parameter in apart)
    muon = Muon([up, projector], lr=0.01, weight_decay=0.1)
    groups = [{"params": [words], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    expected = learn(apart, muon, torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99)), steps=3)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_muon_is_torchs_but_for_its_rounding(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = [torch.randn(shape) for _ in range(3)]
    ours, torchs = ([nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    found = learn([("", one) for one in ours], Muon(ours, lr=0.01, weight_decay=0.1), steps=4)
    reference = torch.optim.Muon(torchs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    expected = learn([("", one) for one in torchs], reference, steps=4)
    for before, one, other in zip(start, found, expected, strict=True):
        # It orthogonalises in bfloat16, which has three significant digits.
        assert (one - other).norm() < 0.02 * (other - before).norm()


def test_orthogonalized_singular_values_are_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(2, 20, 60)))
    assert ((values > 0.6) & (values < 1.3)).all()


def test_in_bfloat16_a_step_is_the_same_to_three_digits() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 24, 40)
    exact, rounded = orthogonalized(matrices), orthogonalized(matrices, dtype=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_a_matrix_without_a_gradient_stays() -> None:
    idle, moved = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    moved.grad = torch.randn(4, 4)
    Muon([idle, moved], lr=0.1, weight_decay=0.1).step()
    assert torch.equal(idle, torch.ones(4, 4))
    assert not torch.equal(moved, torch.ones(4, 4))


def test_a_schedule_reaches_both() -> None:
    named = parameters()
    both = optimizer(named)
    before = [parameter.detach().clone() for _, parameter in named]
    schedule = torch.optim.lr_scheduler.LambdaLR(both, lambda step: 0.0)
    assert all(map(torch.equal, learn(named, both, steps=1), before))
    assert schedule.get_last_lr() == [0.0, 0.0, 0.0]


def test_a_restored_state_continues_as_if_nothing_had_happened() -> None:
    named, restored = parameters(), parameters(seed=5)
    first = optimizer(named)
    learn(named, first, steps=2)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = optimizer(restored)
    second.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for (_, old), (_, new) in zip(named, restored, strict=True):
            new.copy_(old)
    expected = learn(named, first, steps=2, seed=2)
    assert all(map(torch.equal, learn(restored, second, steps=2, seed=2), expected))


@pytest.mark.parametrize("backbone", ["llama", "phi", "stablelm"])
def test_muon_moves_every_matrix_inside_the_network_but_no_gate_and_no_word(backbone: str) -> None:
    model = MedMoE(tiny_config(model_type=backbone, input_norm="layer_norm", residual=True))
    trained = [(name, p) for name, p in model.named_parameters() if not name.startswith("vision_tower.")]
    moved = {name for name, _ in trained if is_hidden_matrix(name)}
    left = {name for name, parameter in trained if parameter.dim() > 1} - moved
    assert all(parameter.dim() == 2 for name, parameter in trained if name in moved)
    assert {name.rsplit(".", 2)[1] for name in left} <= {"embed_tokens", "lm_head", "gate", "coefficient"}
    assert {"projector.linear_1.weight", "projector.linear_2.weight"} <= moved
    assert any(".experts.3." in name for name in moved)
    assert any(".shared_expert." in name for name in moved)
    assert any(".self_attn." in name for name in moved)


def test_without_a_hidden_matrix_there_is_nothing_for_muon() -> None:
    with pytest.raises(ValueError, match="none of these parameters"):
        optimizer([("model.language_model.model.embed_tokens.weight", nn.Parameter(torch.zeros(2, 2)))])
