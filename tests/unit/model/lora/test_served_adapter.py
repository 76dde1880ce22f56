"""The served form against the loop over experts: packed slices, tensor parallelism, precision, compilation."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from medmoe.model.lora.adapter_config import AdapterConfig, RouterScope
from medmoe.model.lora.export import export_block, shard
from medmoe.model.lora.layout import BlockShape, adapted_blocks
from medmoe.model.lora.served_adapter import GatedLoRA, Reduce
from tests.support.checkpoints.tiny import tiny_config
from tests.support.checkpoints.tiny_lora import random_tensors, tiny_adapter
from tests.support.lora_oracle import oracle_delta, oracle_gates

BACKBONES = ("llama", "phi", "stablelm")
LAYER = 2  # two anchors, two specialists


class Case:
    """One block of one layer with random adapters, in float64."""

    def __init__(self, model_type: str, block: str, scope: RouterScope, **adapter: Any) -> None:
        base = tiny_config(model_type=model_type, moe_layers=())
        self.config: AdapterConfig = tiny_adapter(base, router_scope=scope, **adapter)
        self.tensors = {name: value.double() for name, value in random_tensors(self.config, base).items()}
        (self.block,) = (shape for shape in adapted_blocks(self.config, base) if shape.name == block)
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(7, self.block.width, generator=generator, dtype=torch.float64)
        self.inner = torch.randn(7, self.block.exit.in_features, generator=generator, dtype=torch.float64)

    def module(self, *, dtype: torch.dtype = torch.float64, **options: Any) -> GatedLoRA:
        exported = export_block(self.config, self.tensors, layer=LAYER, block=self.block)
        return filled(self, exported, dtype=dtype, **options)

    def gates(self, name: str) -> torch.Tensor:
        owner, x = (self.block.name, self.x) if self.config.router_scope == "block" else (name, self.input_of(name))
        prefix = f"layers.{LAYER}.{owner}.router"
        return oracle_gates(x, self.tensors[f"{prefix}.weight"], float(self.tensors[f"{prefix}.log_tau"]))

    def input_of(self, name: str) -> torch.Tensor:
        return self.inner if name == self.block.exit.name else self.x

    def expected(self, name: str) -> torch.Tensor:
        layer = self.config.layers[LAYER]
        gates = self.gates(name) if layer.n_experts > 1 else torch.ones(7, 1, dtype=torch.float64)
        a, b = (self.tensors[f"layers.{LAYER}.{name}.lora_{part}"] for part in "AB")
        return oracle_delta(self.input_of(name), gates, a, b, ranks=layer.ranks, alphas=layer.alphas)


def filled(case: Case, tensors: dict[str, torch.Tensor], *, dtype: torch.dtype, **options: Any) -> GatedLoRA:
    module = GatedLoRA(
        case.block,
        case.config.layers[LAYER],
        router_scope=case.config.router_scope,
        dtype=dtype,
        **options,
    )
    if dtype == torch.float64:
        module.double()
    module.load(tensors)
    return module


@pytest.fixture(params=[*product(BACKBONES, ("attn", "mlp"), ("block", "module"))], ids=lambda value: "-".join(value))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def test_the_served_form_equals_the_loop_over_experts(case: Case) -> None:
    module = case.module()
    u, gates = module.enter(case.x)
    for linear in case.block.entry:
        y = torch.randn(7, linear.out_features, dtype=torch.float64)
        torch.testing.assert_close(module.add_entry(y, u, linear.name), y + case.expected(linear.name))
    y = torch.randn(7, case.block.exit.out_features, dtype=torch.float64)
    torch.testing.assert_close(module.add_exit(y, case.inner, gates), y + case.expected(case.block.exit.name))


def test_packed_entry_linears_get_their_own_slices(case: Case) -> None:
    widths = [linear.out_features for linear in case.block.entry]
    packed = torch.randn(7, sum(widths), dtype=torch.float64)
    before = packed.clone()
    module = case.module()
    after = module.add_packed_entry(packed, module.enter(case.x)[0])
    for linear, old, new in zip(case.block.entry, before.split(widths, 1), after.split(widths, 1), strict=True):
        torch.testing.assert_close(new, old + case.expected(linear.name))


def test_the_shrink_product_is_padded_for_gemm_kernels_and_the_padding_is_zero(case: Case) -> None:
    exported = export_block(case.config, case.tensors, layer=LAYER, block=case.block)
    used = len(case.block.entry) * case.config.layers[LAYER].total_rank
    assert exported["shrink"].shape[0] % 16 == 0
    assert 0 <= exported["shrink"].shape[0] - used < 16
    assert not exported["shrink"][used:].any()


def test_a_single_expert_is_ordinary_lora_without_a_router() -> None:
    from medmoe.model.lora.schedule import layer_of_ranks

    case = Case("llama", "mlp", "block", anchor_mode="null", layers=(layer_of_ranks((16,), n_anchor=0),) * 3)
    assert not [name for name in case.tensors if "router" in name]
    module = case.module()
    u, gates = module.enter(case.x)
    assert gates is None
    y = torch.zeros(7, 64, dtype=torch.float64)
    torch.testing.assert_close(module.add_exit(y, case.inner, gates), case.expected("down_proj"))
    gate = torch.zeros(7, 128, dtype=torch.float64)
    torch.testing.assert_close(module.add_entry(gate, u, "gate_proj"), case.expected("gate_proj"))


def halves(block: BlockShape) -> Iterator[tuple[dict[str, slice], slice]]:
    def half(size: int, rank: int) -> slice:
        return slice(rank * size // 2, (rank + 1) * size // 2)

    for rank in (0, 1):
        rows = {linear.name: half(linear.out_features, rank) for linear in block.entry}
        yield rows, half(block.exit.in_features, rank)


def two_ranks(case: Case, *, reduce: tuple[Reduce | None, Reduce | None]) -> list[GatedLoRA]:
    exported = export_block(case.config, case.tensors, layer=LAYER, block=case.block)
    modules = []
    for (rows, columns), sum_over_ranks in zip(halves(case.block), reduce, strict=True):
        part = shard(exported, rows=rows, columns=columns)
        modules.append(
            filled(
                case,
                part,
                dtype=torch.float64,
                rows={name: rows_of.stop - rows_of.start for name, rows_of in rows.items()},
                columns=columns.stop - columns.start,
                reduce=sum_over_ranks,
            )
        )
    return modules


def exit_logits(case: Case, columns: slice) -> torch.Tensor:
    name = f"layers.{LAYER}.{case.block.exit.name}.router"
    weight = case.tensors[f"{name}.weight"] / case.tensors[f"{name}.log_tau"].exp().clamp(0.25, 4.0)
    return F.linear(case.inner[:, columns], weight[:, columns])


def test_two_ranks_together_give_what_one_gives(case: Case) -> None:
    """Column-parallel entry: each rank its rows. Row-parallel exit: partial sums, added before the all-reduce."""
    cut = list(halves(case.block))
    reduce: tuple[Reduce | None, Reduce | None] = (None, None)
    if case.config.router_scope == "module":
        # The collective, simulated: what this rank has plus what the other would send.
        reduce = (lambda own: own + exit_logits(case, cut[1][1]), lambda own: own + exit_logits(case, cut[0][1]))
    modules = two_ranks(case, reduce=reduce)
    states = [module.enter(case.x) for module in modules]
    for linear in case.block.entry:
        parts = [
            module.add_entry(torch.zeros(7, linear.out_features // 2, dtype=torch.float64), u, linear.name)
            for module, (u, _) in zip(modules, states, strict=True)
        ]
        torch.testing.assert_close(torch.cat(parts, dim=1), case.expected(linear.name))
    sums = [
        module.add_exit(torch.zeros(7, case.block.width, dtype=torch.float64), case.inner[:, columns], gates)
        for module, (_, gates), (_, columns) in zip(modules, states, cut, strict=True)
    ]
    torch.testing.assert_close(sums[0] + sums[1], case.expected(case.block.exit.name))


@pytest.mark.parametrize("model_type", BACKBONES)
def test_a_router_of_a_split_linear_is_wrong_without_the_sum_over_ranks(model_type: str) -> None:
    case = Case(model_type, "mlp", "module")
    modules = two_ranks(case, reduce=(None, None))
    total = sum(
        module.add_exit(torch.zeros(7, case.block.width, dtype=torch.float64), case.inner[:, columns], None)
        for module, (_, columns) in zip(modules, halves(case.block), strict=True)
    )
    error = (total - case.expected(case.block.exit.name)).norm() / case.expected(case.block.exit.name).norm()
    assert error > 0.05


def test_bfloat16_moves_no_gate() -> None:
    case = Case("llama", "mlp", "block")
    name = f"layers.{LAYER}.mlp.router"
    # Logits of deviation 2, as confident as a trained router gets without collapsing.
    case.tensors[f"{name}.weight"] *= 2 / (case.tensors[f"{name}.weight"].norm(dim=1).mean())
    case.tensors[f"{name}.log_tau"].zero_()
    torch.manual_seed(0)
    x = torch.randn(512, 64, dtype=torch.bfloat16)
    case.x = x.double()
    segment = torch.tensor(case.config.layers[LAYER].segment)
    exact = case.gates("gate_proj")[:, segment]
    module = case.module(dtype=torch.bfloat16)
    _, gates = module.enter(x)
    assert gates is not None
    assert (gates.double() - exact).abs().max() < 1e-5


def test_tensors_of_another_shape_or_name_are_refused() -> None:
    case = Case("llama", "mlp", "block")
    exported = export_block(case.config, case.tensors, layer=LAYER, block=case.block)
    module = case.module()
    with pytest.raises(ValueError, match="exit_expand"):
        module.load(exported | {"exit_expand": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match="router"):
        module.load({name: tensor for name, tensor in exported.items() if name != "router"})


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a CPU the engine goes without, and its tests may have run in this process."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    with torch._dynamo.config.patch(disable=False):
        yield


@pytest.mark.usefixtures("compiling")
def test_it_compiles_whole_and_once_for_every_number_of_tokens(case: Case) -> None:
    module = case.module(dtype=torch.float32)
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: object) -> object:
        nonlocal graphs
        graphs += 1
        return graph.forward

    def block(x: torch.Tensor, inner: torch.Tensor, packed: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        u, gates = module.enter(x)
        return torch.cat([module.add_packed_entry(packed, u), module.add_exit(y, inner, gates)], dim=1)

    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend=count)
    width = sum(linear.out_features for linear in case.block.entry)
    for tokens in (5, 9, 64):
        x, inner = torch.randn(tokens, case.block.width), torch.randn(tokens, case.block.exit.in_features)
        packed, y = torch.randn(tokens, width), torch.randn(tokens, case.block.width)
        expected = block(x, inner, packed.clone(), y)
        torch.testing.assert_close(compiled(x, inner, packed.clone(), y), expected)
    assert graphs == 1
