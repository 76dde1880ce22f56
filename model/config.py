"""Parse config.json, the architecture of a checkpoint.

Torch-free on purpose: the server reads it without importing torch. Every field is checked; an unknown or
missing key is a ConfigError that names it, so that a checkpoint from a newer version is refused, not guessed at.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medmoe.model.errors import ConfigError
from medmoe.model.files.strict_json import StrictFile, StrictSection

CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""Pattern of a checkpoint's name."""

BUNDLED = Path(__file__).parent / "pretrained" / "medmoe-tiny"
"""Directory of the package's own checkpoint."""

# Far above any model of this family, far below what would exhaust memory before a tensor is read.
Size = Annotated[int, Field(gt=0, le=2**20)]
Count = Annotated[int, Field(gt=0, le=1024)]
TokenId = Annotated[int, Field(ge=0, lt=2**20)]
Positive = Annotated[float, Field(gt=0)]
PromptText = Annotated[str, Field(max_length=2**16)]
Channel = Annotated[int, Field(ge=0, le=255)]


def name_of(directory: Path) -> str:
    """Return the name of a checkpoint in `directory`: what a name cannot hold becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", directory.absolute().name).strip("-._")[:128] or "checkpoint"


class VisionConfig(StrictSection):
    """A vision transformer of transformers' own (`Dinov2Model`, `CLIPVisionModel`, `SiglipVisionModel`); in pixels."""

    model_type: Literal["dinov2", "clip", "siglip"]
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Count
    """Blocks that are used: the features are the last one's output, before any final norm. LLaVA's layer -2 of a
    24-block CLIP is therefore 23."""
    num_attention_heads: Count
    image_size: int = Field(gt=0, le=4096)
    patch_size: Count
    layer_norm_eps: Positive = 1e-6
    hidden_act: Literal["gelu", "quick_gelu", "gelu_pytorch_tanh"] = "gelu"
    drop_first_patch: bool = False
    """Leave out the top left patch. Upstream cuts the first position whatever it is; SigLIP has no class token there,
    so MoE-LLaVA's 384-pixel checkpoints were trained on 728 of 729 patches."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")
        # SigLIP's 384 pixels are 27 patches of 14 and 6 pixels that no patch sees; the others have no such checkpoint.
        if self.image_size % self.patch_size and self.model_type != "siglip":
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.drop_first_patch and (self.model_type != "siglip" or self.grid < 2):
            raise ValueError("drop_first_patch belongs to siglip, the tower without a class token")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads does not divide hidden_size")
        if self.model_type == "dinov2" and self.intermediate_size % self.hidden_size:
            raise ValueError("a dinov2 intermediate_size is a multiple of hidden_size")
        return self

    @property
    def grid(self) -> int:
        """Return the number of patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Return the number of features for one image."""
        return self.grid**2 - self.drop_first_patch


class ProjectorConfig(StrictSection):
    """Two linear layers with an exact GELU between (LLaVA's `mlp2x_gelu`)."""

    downsample_factor: Count = 1
    """Side of the square of patches folded into one token before the projection; 1 is the published form."""
    input_norm: Literal["none", "layer_norm"] = "none"
    """Norm of each patch's features. A tower cut before its final norm gives features whose scale may be far
    from 1. The published form has none."""


class TextConfig(StrictSection):
    """A decoder of transformers' own, some of whose FFNs are MoE layers (Med-MoE, arXiv 2404.10237, eq. 4).

    What a family fixes is not repeated here: Phi's parallel block, biases and tanh GELU; Llama's RMSNorm and SwiGLU;
    StableLM's LayerNorm and SwiGLU.
    """

    model_type: Literal["llama", "phi", "stablelm"]
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    max_position_embeddings: Size
    norm_eps: Positive = 1e-5
    rope_theta: Positive = 10000.0
    partial_rotary_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of each head's dimensions that is rotated: 0.4 in Phi-2, 0.25 in StableLM-2, all in Llama."""
    qkv_bias: bool = False
    """StableLM's `use_qkv_bias`. Phi always has biases, Llama never."""
    tie_word_embeddings: bool = False
    bos_token_id: TokenId | None = None
    eos_token_id: TokenId
    pad_token_id: TokenId

    num_experts: Count = 4
    num_experts_per_tok: Count = 1
    moe_layers: tuple[int, ...] = ()
    """Indices of the layers whose FFN is an MoE, ascending; empty is a dense model (training stages 1 and 2)."""
    gate_bias: bool = True
    renormalize: bool = False
    """Divide the chosen experts' softmax weights by their sum: off for top-1, where it would erase the gate."""
    shared_expert: bool = True
    """The always-on meta expert, added with weight 1."""
    residual: bool = False
    """Upstream's `use_residual`: a learnt two-way mix of routed and meta expert before the meta expert is added. Both
    uses of the meta expert share one set of weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads does not divide hidden_size")
        if self.rotary_dim < 2 or self.rotary_dim % 2:
            raise ValueError(f"rotary positions need an even number of dimensions, not {self.rotary_dim} of a head")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_key_value_heads does not divide num_attention_heads")
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError("num_experts_per_tok exceeds num_experts")
        if list(self.moe_layers) != sorted(set(self.moe_layers)):
            raise ValueError("moe_layers must be ascending and without repeats")
        if self.moe_layers and not 0 <= self.moe_layers[0] <= self.moe_layers[-1] < self.num_hidden_layers:
            raise ValueError(f"moe_layers lie outside the {self.num_hidden_layers} layers")
        if self.residual and not self.shared_expert:
            raise ValueError("residual mixes in the shared expert, which shared_expert switches off")
        if self.model_type == "llama" and self.partial_rotary_factor != 1:
            raise ValueError("a llama rotates whole heads; partial_rotary_factor must be 1")
        if self.model_type != "stablelm" and self.qkv_bias:
            raise ValueError("qkv_bias is a choice of stablelm alone")
        if self.model_type == "phi" and self.num_key_value_heads != self.num_attention_heads:
            raise ValueError("phi has as many key and value heads as attention heads")
        if self.model_type == "phi" and self.tie_word_embeddings:
            raise ValueError("phi does not tie its output head")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.vocab_size:
                raise ValueError(f"{name} lies outside the vocabulary")
        return self

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """Return the number of rotated dimensions of a head."""
        return int(self.head_dim * self.partial_rotary_factor)


class ImageProcessorConfig(StrictSection):
    """Preprocessing of an RGB image before the vision tower, in training and in serving."""

    mode: Literal["pad", "crop"] = "pad"
    """pad: to a square with `background`, then resize. crop: short side to size, then the centre square."""
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    background: tuple[Channel, Channel, Channel]
    """RGB fill of the padding, 0 to 255; upstream uses the mean colour."""


class TurnsConfig(StrictSection):
    """How a conversation goes on after an answer: ` {answer}<end of sequence>{user}{question}{assistant}`."""

    user: PromptText = "USER: "
    system_message: PromptText = ""
    """The beginning of `{system}{user}` in the prompt's template that a system message replaces. Empty: the template
    has no place for one."""


class PromptConfig(StrictSection):
    """The prompt template: `{system}{user}<image>{separator}{question}{assistant}`."""

    system: PromptText = ""
    user: PromptText = "USER: "
    separator: PromptText = "\n"
    assistant: PromptText = " ASSISTANT:"
    classification: PromptText = "Which of these is shown: {labels}?"
    """The question `/v1/classify` asks, and classification data are trained with."""
    turns: TurnsConfig | None = None
    """None: the checkpoint was trained on single questions."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "{labels}" not in self.classification:
            raise ValueError("classification must say where the {labels} go")
        if self.turns is not None and not (self.system + self.user).startswith(self.turns.system_message):
            raise ValueError("system and user do not begin with the system_message of turns")
        return self


class MedMoEConfig(StrictFile):
    """The configuration of model, preprocessing and prompt."""

    FILE = CONFIG_FILE
    KIND = "a Med-MoE configuration"

    model_type: Literal["medmoe"] = "medmoe"
    architectures: tuple[Literal["MedMoEForConditionalGeneration"]] = ("MedMoEForConditionalGeneration",)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    name: str = Field(default="medmoe", pattern=NAME)
    vision_config: VisionConfig
    projector_config: ProjectorConfig = ProjectorConfig()
    text_config: TextConfig
    image_processor: ImageProcessorConfig
    prompt: PromptConfig = PromptConfig()
    image_token_id: TokenId
    """A row of the vocabulary, or `vocab_size` itself: a token the tokenizer knows and the model has no row for, which
    therefore can never be an answer. Converted checkpoints have the second, because upstream has no such token."""
    expert_domains: tuple[str, ...] = ()
    """The label the router was trained to send to each expert, by expert index; empty where unknown."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        text = self.text_config
        if self.image_token_id > text.vocab_size:
            raise ValueError(f"image_token_id lies beyond {text.vocab_size}, the first id after the vocabulary")
        if self.image_token_id in (text.bos_token_id, text.eos_token_id, text.pad_token_id):
            raise ValueError("image_token_id must be a token of its own")
        factor = self.projector_config.downsample_factor
        if self.vision_config.grid % factor:
            raise ValueError("downsample_factor does not divide the patch grid")
        if factor > 1 and self.vision_config.drop_first_patch:
            raise ValueError("downsample_factor folds whole squares of patches; drop_first_patch leaves a hole")
        if self.expert_domains and len(self.expert_domains) != self.text_config.num_experts:
            raise ValueError("expert_domains must name every expert")
        return self

    @property
    def num_image_tokens(self) -> int:
        """Return the number of tokens that one image occupies in the prompt."""
        return self.vision_config.num_patches // self.projector_config.downsample_factor**2

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Read `directory/config.json`. Raises ConfigError when it is missing or malformed."""
        try:
            return cls.read(directory)
        except ConfigError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            reason = f"holds no checkpoint: {CONFIG_FILE} is missing" if directory.is_dir() else "does not exist"
            raise ConfigError(f"{directory} {reason}") from error
