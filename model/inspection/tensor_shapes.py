"""List the name and shape of every tensor of the weights from config.json alone. Torch-free.

medmoe.model.checkpoint.io.expected_shapes gives the same from the built model, which needs torch.
"""

from collections.abc import Iterator
from dataclasses import replace

from medmoe.model.checkpoint.tensor_comparison import Shape
from medmoe.model.config import MedMoEConfig, TextConfig, VisionConfig
from medmoe.model.lora.layout import LinearShape, backbone_blocks

_Tensors = Iterator[tuple[str, Shape]]


def tensor_shapes(config: MedMoEConfig) -> dict[str, Shape]:
    """Return the shape of each stored tensor by its name on disk."""
    shapes = {f"vision_tower.backbone.{name}": shape for name, shape in _vision_tower(config.vision_config)}
    shapes |= {f"projector.{name}": shape for name, shape in _projector(config)}
    shapes |= {f"language_model.{name}": shape for name, shape in _language_model(config.text_config)}
    return shapes


def _vision_tower(vision: VisionConfig) -> _Tensors:
    width, inner, side = vision.hidden_size, vision.intermediate_size, vision.patch_size
    patches, kernel = vision.grid**2, (width, 3, side, side)
    if vision.model_type == "dinov2":
        yield "embeddings.cls_token", (1, 1, width)
        yield "embeddings.position_embeddings", (1, patches + 1, width)
        yield "embeddings.patch_embeddings.projection.weight", kernel
        yield "embeddings.patch_embeddings.projection.bias", (width,)
        block, norm, attention, output = "layer", "norm", "attention", "o_proj"
    else:
        class_tokens = int(vision.model_type == "clip")
        yield "embeddings.position_embedding.weight", (patches + class_tokens, width)
        yield "embeddings.patch_embedding.weight", kernel
        if vision.model_type == "clip":
            yield "embeddings.class_embedding", (width,)
            yield from _norm("pre_layrnorm", width)
        else:
            yield "embeddings.patch_embedding.bias", (width,)
        block, norm, attention, output = "layers", "layer_norm", "self_attn", "out_proj"
    for index in range(vision.num_hidden_layers):
        prefix = f"encoder.{block}.{index}"
        for number in (1, 2):
            yield from _norm(f"{prefix}.{norm}{number}", width)
            if vision.model_type == "dinov2":
                yield f"{prefix}.layer_scale{number}.lambda1", (width,)
        for name in ("q_proj", "k_proj", "v_proj", output):
            yield from _linear(f"{prefix}.{attention}", LinearShape(name=name, in_features=width, out_features=width))
        yield from _linear(f"{prefix}.mlp", LinearShape(name="fc1", in_features=width, out_features=inner))
        yield from _linear(f"{prefix}.mlp", LinearShape(name="fc2", in_features=inner, out_features=width))


def _projector(config: MedMoEConfig) -> _Tensors:
    width, hidden = config.vision_config.hidden_size, config.text_config.hidden_size
    folded = width * config.projector_config.downsample_factor**2
    if config.projector_config.input_norm == "layer_norm":
        yield from _norm("input_norm", width)
    yield from {"linear_1.weight": (hidden, folded), "linear_1.bias": (hidden,)}.items()
    yield from {"linear_2.weight": (hidden, hidden), "linear_2.bias": (hidden,)}.items()


def _language_model(text: TextConfig) -> _Tensors:
    table, phi = (text.vocab_size, text.hidden_size), text.model_type == "phi"
    norms_have_bias = text.model_type != "llama"
    attention, ffn = backbone_blocks(text)
    yield "model.embed_tokens.weight", table
    for index in range(text.num_hidden_layers):
        prefix = f"model.layers.{index}"
        for name in ("input_layernorm",) if phi else ("input_layernorm", "post_attention_layernorm"):
            yield from _norm(f"{prefix}.{name}", text.hidden_size, bias=norms_have_bias)
        for linear in attention.entry:
            yield from _linear(f"{prefix}.self_attn", linear, bias=phi or text.qkv_bias)
        yield from _linear(f"{prefix}.self_attn", attention.exit, bias=phi)
        places = [f"{prefix}.mlp"]
        if index in text.moe_layers:
            places = [f"{prefix}.mlp.experts.{expert}" for expert in range(text.num_experts)]
            places += [f"{prefix}.mlp.shared_expert"] if text.shared_expert else []
            gate = LinearShape(name="gate", in_features=text.hidden_size, out_features=text.num_experts)
            yield from _linear(f"{prefix}.mlp", gate, bias=text.gate_bias)
            if text.residual:
                yield from _linear(f"{prefix}.mlp", replace(gate, name="coefficient", out_features=2))
        for place in places:
            for linear in ffn.linears:
                yield from _linear(place, linear, bias=phi)
    yield from _norm("model.final_layernorm" if phi else "model.norm", text.hidden_size, bias=norms_have_bias)
    if not text.tie_word_embeddings:
        yield "lm_head.weight", table


def _linear(prefix: str, linear: LinearShape, *, bias: bool = True) -> _Tensors:
    yield f"{prefix}.{linear.name}.weight", (linear.out_features, linear.in_features)
    if bias:
        yield f"{prefix}.{linear.name}.bias", (linear.out_features,)


def _norm(name: str, width: int, *, bias: bool = True) -> _Tensors:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)
