"""Dropout that comes and goes with a stage."""

import pytest
import torch

from medmoe.model.medmoe import MedMoE
from medmoe.training.optimization.dropout import residual_dropout
from tests.support.checkpoints.tiny import tiny_config


def inputs(model: MedMoE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = model.config.image_token_id
    ids = torch.tensor([[1, *[image] * model.config.num_image_tokens, 20, 30, 40]])
    return ids, torch.ones_like(ids), torch.rand(1, model.config.vision_config.num_patches, 32)


@pytest.mark.parametrize("family", ["llama", "phi", "stablelm"])
def test_in_training_each_pass_drops_out_other_values(family: str) -> None:
    torch.manual_seed(0)
    model = MedMoE(tiny_config(model_type=family)).train()
    batch = inputs(model)
    without = model.hidden_states(*batch)
    with residual_dropout(model, 0.3):
        first, second = model.hidden_states(*batch), model.hidden_states(*batch)
        model.eval()
        evaluated = model.hidden_states(*batch)
    assert not torch.equal(first, second)
    model.train()
    torch.testing.assert_close(model.hidden_states(*batch), without, rtol=0, atol=0)
    torch.testing.assert_close(evaluated, without)


@pytest.mark.parametrize("part", ["self_attn", "mlp", "projector"])
def test_every_part_that_adds_to_the_stream_is_dropped_out(part: str) -> None:
    """0.9 of the output is zero and the rest ten times as large."""
    torch.manual_seed(0)
    model = MedMoE(tiny_config()).train()
    module = model.projector if part == "projector" else getattr(model.language_model.model.layers[1], part)
    seen: list[torch.Tensor] = []
    with residual_dropout(model, 0.9):
        # Registered after dropout's own, so it sees what the model sees.
        hook = module.register_forward_hook(lambda _, __, output: seen.append(output))
        model.hidden_states(*inputs(model))
        hook.remove()
    output = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert 0.8 < float((output == 0).float().mean()) < 0.97


def test_without_dropout_no_module_is_touched() -> None:
    model = MedMoE(tiny_config())
    with residual_dropout(model, 0.0):
        assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_a_probability_out_of_range_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="dropout of"), residual_dropout(MedMoE(tiny_config()), probability):
        pass
