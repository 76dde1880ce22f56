"""The normalisation that the engine prefers on a CPU against the one that vLLM would have chosen."""

from collections.abc import Iterator

import pytest
import torch

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def _preferred() -> Iterator[None]:
    from vllm import ir
    from vllm.platforms import current_platform

    from medmoe.model.vllm_plugin.cpu.rms_norm_cpu import prefer_fused_norms

    if not current_platform.is_cpu():
        pytest.skip("on a GPU vLLM has kernels of its own")
    current_platform.import_kernels()
    operations = (ir.ops.rms_norm, ir.ops.fused_add_rms_norm)
    before = [operation._priority_impls for operation in operations]
    prefer_fused_norms()
    yield
    for operation, priority in zip(operations, before, strict=True):
        operation._priority_impls = priority


def _inputs(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x, residual = (torch.randn(rows, 96, generator=generator).to(dtype) for _ in range(2))
    return x, residual, torch.randn(96, generator=generator).to(dtype)


@pytest.mark.parametrize("rows", [1, 3, 200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_norms_are_those_of_single_operations(rows: int, dtype: torch.dtype, tolerance: float) -> None:
    from vllm import ir

    x, residual, weight = _inputs(rows, dtype)
    expected = ir.ops.rms_norm.impls["native"].impl_fn(x, weight, 1e-5)
    assert ir.ops.rms_norm.dispatch(x, weight, 1e-5).provider != "native"
    assert torch.allclose(ir.ops.rms_norm(x, weight, 1e-5), expected, atol=tolerance, rtol=tolerance)
    expected, total = ir.ops.fused_add_rms_norm.impls["native"].impl_fn(x, residual, weight, 1e-5)
    found = ir.ops.fused_add_rms_norm.maybe_inplace(x.clone(), residual.clone(), weight, 1e-5)
    assert torch.equal(found[1], total)
    assert torch.allclose(found[0], expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    from vllm import ir

    x, residual, weight = _inputs(300, dtype)
    assert torch.equal(ir.ops.rms_norm(x, weight, 1e-5)[7:8], ir.ops.rms_norm(x[7:8], weight, 1e-5))
    whole, alone = (
        ir.ops.fused_add_rms_norm.maybe_inplace(x[part].clone(), residual[part].clone(), weight, 1e-5)[0]
        for part in (slice(None), slice(7, 8))
    )
    assert torch.equal(whole[7:8], alone)


def test_what_the_kernel_cannot_take_is_left_to_single_operations() -> None:
    from vllm import ir

    x, residual, weight = _inputs(4, torch.bfloat16)
    assert ir.ops.rms_norm.dispatch(x, weight.float(), 1e-5).provider == "native"
    assert ir.ops.rms_norm.dispatch(x.T, weight[:4], 1e-5).provider == "native"
    assert ir.ops.fused_add_rms_norm.dispatch(x, residual.float(), weight, 1e-5).provider == "native"
