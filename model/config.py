"""The architecture of a checkpoint, as config.json states it.

Torch-free on purpose: the server reads it without importing torch. Every field is checked; an unknown or
missing key is a ConfigError that names it, so that a checkpoint from a newer version is refused, not guessed at.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medmoe.model.errors import ConfigError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

# Far above any model of this family, far below what would exhaust memory before a tensor is read.
Size = Annotated[int, Field(gt=0, le=2**20)]
Count = Annotated[int, Field(gt=0, le=1024)]
TokenId = Annotated[int, Field(ge=0, lt=2**20)]
Positive = Annotated[float, Field(gt=0)]
Channel = Annotated[int, Field(ge=0, le=255)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class VisionConfig(_Section):
    """A vision transformer of transformers' own (`Dinov2Model`, `CLIPVisionModel`); sizes in pixels."""

    model_type: Literal["dinov2", "clip"]
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Count
    """Blocks that are used: the features are the last one's output, before any final norm. LLaVA's layer -2 of a
    24-block CLIP is therefore 23."""
    num_attention_heads: Count
    image_size: int = Field(gt=0, le=4096)
    patch_size: Count
    layer_norm_eps: Positive = 1e-6
    hidden_act: Literal["gelu", "quick_gelu"] = "gelu"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads does not divide hidden_size")
        if self.model_type == "dinov2" and self.intermediate_size % self.hidden_size:
            raise ValueError("a dinov2 intermediate_size is a multiple of hidden_size")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


class ProjectorConfig(_Section):
    """Two linear layers with an exact GELU between (LLaVA's `mlp2x_gelu`)."""

    downsample_factor: Count = 1
    """Side of the square of patches folded into one token before the projection; 1 is the published form."""


class TextConfig(_Section):
    """A Llama-family decoder, some of whose FFNs are MoE layers (Med-MoE, arXiv 2404.10237, eq. 4)."""

    model_type: Literal["llama"]
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    max_position_embeddings: Size
    rms_norm_eps: Positive = 1e-5
    rope_theta: Positive = 10000.0
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
    """Upstream's `use_residual`: a learnt two-way mix of routed and meta expert before the meta expert is added."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads does not divide hidden_size")
        if self.head_dim % 2:
            raise ValueError("rotary positions need an even head size")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_key_value_heads does not divide num_attention_heads")
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError("num_experts_per_tok exceeds num_experts")
        if list(self.moe_layers) != sorted(set(self.moe_layers)):
            raise ValueError("moe_layers must be ascending and without repeats")
        if self.moe_layers and not 0 <= self.moe_layers[0] <= self.moe_layers[-1] < self.num_hidden_layers:
            raise ValueError(f"moe_layers lie outside the {self.num_hidden_layers} layers")
        if self.residual:
            raise ValueError("residual mixing is not built in this version")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.vocab_size:
                raise ValueError(f"{name} lies outside the vocabulary")
        return self

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


class ImageProcessorConfig(_Section):
    """What is done to an RGB image before the tower; the only definition, in training and in serving."""

    mode: Literal["pad", "crop"] = "pad"
    """pad: to a square with `background`, then resize. crop: short side to size, then the centre square."""
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    background: tuple[Channel, Channel, Channel]
    """RGB fill of the padding, 0 to 255; upstream uses the mean colour."""


class PromptConfig(_Section):
    """The words around a question; `{system}{user}<image>{separator}{question}{assistant}`."""

    system: str = ""
    user: str = "USER: "
    separator: str = "\n"
    assistant: str = " ASSISTANT:"
    classification: str = "Which of these is shown: {labels}?"
    """The question `/v1/classify` asks, and classification data are trained with."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "{labels}" not in self.classification:
            raise ValueError("classification must say where the {labels} go")
        return self


class MedMoEConfig(_Section):
    """Everything needed to build the model and to talk to it."""

    model_type: Literal["medmoe"] = "medmoe"
    architectures: tuple[Literal["MedMoEForConditionalGeneration"]] = ("MedMoEForConditionalGeneration",)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    name: str = Field(default="medmoe", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    vision_config: VisionConfig
    projector_config: ProjectorConfig = ProjectorConfig()
    text_config: TextConfig
    image_processor: ImageProcessorConfig
    prompt: PromptConfig = PromptConfig()
    image_token_id: TokenId
    expert_domains: tuple[str, ...] = ()
    """The label the router was trained to send to each expert, by expert index; empty where unknown."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_token_id >= self.text_config.vocab_size:
            raise ValueError("image_token_id lies outside the vocabulary")
        text = self.text_config
        if self.image_token_id in (text.bos_token_id, text.eos_token_id, text.pad_token_id):
            raise ValueError("image_token_id must be a token of its own")
        if self.vision_config.grid % self.projector_config.downsample_factor:
            raise ValueError("downsample_factor does not divide the patch grid")
        if self.expert_domains and len(self.expert_domains) != self.text_config.num_experts:
            raise ValueError("expert_domains must name every expert")
        return self

    @property
    def num_image_tokens(self) -> int:
        """Tokens one image occupies in the prompt."""
        return (self.vision_config.grid // self.projector_config.downsample_factor) ** 2

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse config.json's text. Raises ConfigError naming every offending key, never its value."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False)
            )
            raise ConfigError(f"{CONFIG_FILE} is not a Med-MoE configuration: {problems}") from error

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Read `directory/config.json`. Raises ConfigError when it is missing or malformed."""
        path = directory / CONFIG_FILE
        try:
            return cls.from_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"
