"""Grouped experts against the loop of the reference layer: the same sums, the same gradients."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from medmoe.model import moe as moe_file
from medmoe.model.config import TextConfig
from medmoe.model.grouped_experts import Form, grouped_experts, grouped_products, segments, takes_grouped_products
from medmoe.model.language_model import build_language_model
from medmoe.model.moe import MoE
from tests.support.checkpoints.tiny import tiny_config

FAMILIES = ["llama", "stablelm", "phi"]
FORMS = [pytest.param(segments, id="segments"), pytest.param(grouped_products, id="products")]
TOP_1 = {"num_experts_per_tok": 1, "renormalize": False}
TOP_2 = {"num_experts_per_tok": 2, "renormalize": True}
Results = dict[str, torch.Tensor | None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Form], None]:
    """Makes the layer take one form in training, whatever it would choose."""
    return lambda form: monkeypatch.setattr(moe_file, "grouped_experts", partial(grouped_experts, form=form))


def text(family: str = "llama", **changes: object) -> TextConfig:
    return tiny_config(model_type=family).text_config.model_copy(update=changes)


def random_moe(config: TextConfig, *, without_tokens: int | None = None) -> MoE:
    """A layer whose experts differ, choose unevenly, and of which one may get nothing."""
    torch.manual_seed(0)
    moe = (
        build_language_model(config.model_copy(update={"num_hidden_layers": 1, "moe_layers": (0,)})).model.layers[0].mlp
    )
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(std=0.1)
        moe.gate.bias.copy_(torch.tensor([0.6, 0.0, -0.3, 0.1]))
        if without_tokens is not None:
            moe.gate.bias[without_tokens] = -50
    return moe


def results(moe: MoE, x: torch.Tensor, *, training: bool) -> Results:
    """Output, and the gradient of everything, of a sum that weights all outputs differently."""
    moe = copy.deepcopy(moe).train(training)
    x = x.clone().requires_grad_()
    output = moe(x)
    factors = torch.linspace(-1, 1, output.numel(), dtype=torch.float32).view(output.shape)
    (output * factors.to(output.dtype)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in moe.named_parameters()}
    return {"output": output.detach(), "x": x.grad, **gradients}


def assert_same(ours: Results, loops: Results, **tolerance: float) -> None:
    assert ours.keys() == loops.keys()
    for name, expected in loops.items():
        actual = ours[name]
        if expected is None:
            assert actual is None or not actual.any(), name
        else:
            assert actual is not None, name
            torch.testing.assert_close(actual, expected, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def loop_by_hand(moe: MoE, x_TD: torch.Tensor) -> torch.Tensor:
    """The routed sum as the layer computed it before it had a grouped form."""
    weights_TK, experts_TK = moe.gate(x_TD)
    y_TD = torch.zeros_like(x_TD)
    for index, expert in enumerate(moe.experts):
        token, rank = torch.where(experts_TK == index)
        if len(token):
            y_TD.index_add_(0, token, expert(x_TD[token]) * weights_TK[token, rank, None].to(x_TD.dtype))
    return y_TD


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", [TOP_1, TOP_1 | {"renormalize": True}, TOP_2, TOP_2 | {"renormalize": False}])
@pytest.mark.parametrize("family", FAMILIES)
def test_output_and_every_gradient_are_the_loops(family: str, choice: dict[str, object], form: Form, use) -> None:
    use(form)
    config = text(family, **choice)
    moe = random_moe(config)
    x = torch.randn(50, config.hidden_size)
    assert moe.gate(x)[1].unique().tolist() == [0, 1, 2, 3]
    assert_same(results(moe, x, training=True), results(moe, x, training=False), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", [TOP_1, TOP_2])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_expert_without_tokens_has_gradients_of_zero(
    family: str, choice: dict[str, object], form: Form, use
) -> None:
    """Not none at all: processes that train together wait for every parameter."""
    use(form)
    config = text(family, **choice)
    moe = random_moe(config, without_tokens=2)
    x = torch.randn(20, config.hidden_size)
    grouped = results(moe, x, training=True)
    idle = [gradient for name, gradient in grouped.items() if name.startswith("experts.2.")]
    assert len(idle) == len(list(moe.experts[2].parameters()))
    assert all(gradient is not None and not gradient.any() for gradient in idle)
    assert_same(grouped, results(moe, x, training=False), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_they_differ_by_rounding(family: str, form: Form, use) -> None:
    """Both are compared with float32, from which the grouped form may not be further away than the loop is."""
    use(form)
    config = text(family, **TOP_2)
    moe = random_moe(config).bfloat16()
    x = torch.randn(200, config.hidden_size).bfloat16()
    exact = results(copy.deepcopy(moe).float(), x.float(), training=False)
    loop, grouped = results(moe, x, training=False), results(moe, x, training=True)
    for name, value in exact.items():
        scale = value.norm()
        error, allowed = (grouped[name].float() - value).norm() / scale, (loop[name].float() - value).norm() / scale
        assert grouped[name].dtype == torch.bfloat16
        assert error < 1.2 * allowed + 1e-4, f"{name}: {error:.1e}, and {allowed:.1e} in the loop"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_precision_is_the_loops(family: str, form: Form, use) -> None:
    use(form)
    config = text(family)
    moe, x = random_moe(config), torch.randn(30, config.hidden_size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loop, grouped = results(moe, x, training=False), results(moe, x, training=True)
    for name, value in loop.items():
        assert grouped[name].dtype == value.dtype == torch.float32
        assert (grouped[name] - value).norm() < 1e-2 * value.norm(), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "changes",
    [{"shared_expert": False}, {"residual": True}, {"residual": True} | TOP_2],
    ids=["no meta expert", "residual", "residual top-2"],
)
def test_whatever_the_layer_does_besides(changes: dict[str, object], form: Form, use) -> None:
    use(form)
    moe = random_moe(text(**changes))
    x = torch.randn(2, 10, 64)
    assert_same(results(moe, x, training=True), results(moe, x, training=False), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_frozen_gets_no_gradient_and_changes_none(form: Form, use) -> None:
    use(form)
    moe = random_moe(text())
    x = torch.randn(40, 64)
    free = results(moe, x, training=False)
    moe.gate.requires_grad_(False)
    moe.experts[1].requires_grad_(False)
    moe.experts[2].down_proj.requires_grad_(False)
    frozen = {name for name, parameter in moe.named_parameters() if not parameter.requires_grad}
    grouped = results(moe, x, training=True)
    assert {name for name, gradient in grouped.items() if gradient is None} == frozen
    for name in grouped.keys() - frozen - {"x"}:
        torch.testing.assert_close(grouped[name], free[name], atol=2e-5, rtol=1e-5)


def test_one_token_and_none() -> None:
    moe = random_moe(text()).train()
    one = torch.randn(1, 64)
    torch.testing.assert_close(moe(one), moe.eval()(one), atol=1e-5, rtol=1e-5)
    assert moe.train()(torch.empty(0, 64)).shape == (0, 64)


@pytest.mark.parametrize("choice", [TOP_1, TOP_2])
def test_evaluation_keeps_the_loops_bits(choice: dict[str, object]) -> None:
    moe = random_moe(text(shared_expert=False, **choice)).eval()
    x = torch.randn(60, 64)
    assert torch.equal(moe(x), loop_by_hand(moe, x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_three_training_steps_of_a_whole_model_are_the_loops(family: str, form: Form, use) -> None:
    use(form)
    config = text(family)
    torch.manual_seed(0)
    model = build_language_model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".gate." in name:
                parameter.normal_(std=0.5)
    tokens = torch.randint(4, config.vocab_size, (2, 24))

    def trained(*, training: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
        copied = copy.deepcopy(model).train(training)
        optimizer = torch.optim.SGD(copied.parameters(), lr=0.1)
        losses = []
        for _ in range(3):
            loss = copied(input_ids=tokens, labels=tokens).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses, copied.state_dict()

    losses, grouped = trained(training=True)
    expected, loop = trained(training=False)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert losses[-1] < losses[0] - 0.05
    for name, value in loop.items():
        torch.testing.assert_close(grouped[name], value, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_host_never_asks_an_accelerator_for_a_value(family: str) -> None:
    """A meta tensor has no values: what asks for one fails, as the loop does. On a GPU it would wait."""
    config = text(family, **TOP_2)
    moe = random_moe(config).bfloat16().to("meta")
    x = torch.empty(3, 20, config.hidden_size, dtype=torch.bfloat16, device="meta", requires_grad=True)
    moe.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in moe.parameters())
    with pytest.raises(NotImplementedError):
        moe.eval()(x)


class Adapted(nn.Linear):
    """Any layer that is more than a matrix."""


@pytest.mark.parametrize(
    "change",
    [
        lambda moe: moe.experts[1].register_module("up_proj", Adapted(64, 128, bias=False, device="meta")),
        lambda moe: moe.experts[1].up_proj.register_forward_pre_hook(lambda module, args: None),
        lambda moe: moe.experts[1].register_forward_hook(lambda module, args, output: None),
        lambda moe: moe.experts.__setitem__(1, nn.Sequential(moe.experts[1])),
        lambda moe: moe.double(),
        lambda moe: moe.experts[1].down_proj.double(),
    ],
    ids=["adapter", "gathering hook", "hook on the FFN", "another module", "float64", "one matrix of float64"],
)
def test_experts_that_are_more_than_their_matrices_are_called(change: Callable[[MoE], object]) -> None:
    moe = random_moe(text()).to("meta")
    x = torch.empty(5, 64, device="meta")
    assert takes_grouped_products(moe.experts, x)
    change(moe)
    assert not takes_grouped_products(moe.experts, x.to(next(moe.parameters()).dtype))


def test_rows_that_torch_would_refuse_are_not_grouped() -> None:
    """Phi's widths need not be multiples of 16 bytes."""
    moe = random_moe(text("phi", intermediate_size=150)).to("meta")
    assert not takes_grouped_products(moe.experts, torch.empty(5, 160, device="meta"))
