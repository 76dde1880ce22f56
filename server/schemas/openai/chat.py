"""Define the part of OpenAI's chat completions that this service offers.

Fields of OpenAI's that it does not offer are named too, so that they are refused by name and not ignored.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.images import ImageFields
from medmoe.server.schemas.inference import Modality, Routing, Timings, UnlikeTraining
from medmoe.server.schemas.vqa import Confidence, SampledProvenance

MAX_STOP_STRINGS = 4
MAX_STOP_CHARS = 256
StopString = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_CHARS)]


class TextPart(ApiModel):
    type: Literal["text"]
    text: str


class ImageURL(ApiModel):
    url: str
    """The image as a base64 data URL; where the deployment names hosts (MEDMOE_IMAGE_URL_HOSTS), its https URL."""
    detail: Literal["auto", "low", "high", "original"] | None = None
    """Changes nothing: the checkpoint decides at which size it sees an image."""


class ImagePart(ApiModel):
    type: Literal["image_url"]
    image_url: ImageURL


class UserMessage(ApiModel):
    role: Literal["user"]
    content: tuple[Annotated[TextPart | ImagePart, Field(discriminator="type")], ...] = Field(min_length=2)
    """One image and the question, in any order: the checkpoint decides where the image stands in the prompt.
    Several texts are joined by line breaks."""


class StreamOptions(ApiModel):
    include_usage: bool = False
    """End the stream with a chunk that counts tokens."""


class NotOffered(ApiModel):
    """Fields of OpenAI's and of other servers that would change the answer if they were offered.

    Null counts as absent, and so does every value that changes nothing, like `top_p: 1`, `tools: []` or any `user`.
    """

    audio: None = None
    chat_id: None = None
    frequency_penalty: None = None
    function_call: None = None
    functions: None = None
    logit_bias: None = None
    metadata: None = None
    modalities: None = None
    moderation: None = None
    parallel_tool_calls: None = None
    prediction: None = None
    presence_penalty: None = None
    prompt_cache_key: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: None = None
    reasoning_effort: None = None
    repetition_penalty: None = None
    response_format: None = None
    safety_identifier: None = None
    service_tier: None = None
    session_id: None = None
    store: None = None
    tool_choice: None = None
    tools: None = None
    top_k: None = None
    top_p: None = None
    user: None = None
    verbosity: None = None
    web_search_options: None = None


class ChatRequest(ImageFields, NotOffered):
    """`POST /v1/chat/completions`: one question about one image, with what was said before where it is offered."""

    model: str | None = None
    """As `GET /v1/models` names it; absent: the active one."""
    messages: tuple[UserMessage, ...] = Field(min_length=1, max_length=1)
    """One user turn; an empty system message may stand before it. Where the checkpoint's template has a place for them,
    a system message and earlier turns of user and assistant too. Otherwise they are refused, or left out where the
    deployment says so (MEDMOE_CHAT_HISTORY). The image may come with any turn; there is one in a conversation."""
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """Longest answer, in tokens."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The older name of max_completion_tokens; not both."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Absent: 0, the most likely answer, and not OpenAI's 1."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Makes an answer with temperature above 0 reproducible; when absent one is chosen and reported."""
    stream: bool | None = None
    """Send the answer as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    stop: StopString | Annotated[tuple[StopString, ...], Field(min_length=1, max_length=MAX_STOP_STRINGS)] | None = None
    """The answer ends before the first of these strings, with finish_reason `stop`. Its confidence is then not
    calibrated."""
    logprobs: bool | None = None
    """Add the log-probability of each token of the answer, under the model and before `temperature`."""
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    """With `logprobs`: add so many of the most likely tokens at each place."""
    include_routing: bool = False
    """Add which experts the tokens of this request went to; a field of this service, and none of OpenAI's, as are those
    below and `window`, `frame` and `allow_uniform`."""
    timeout_ms: int | None = Field(default=None, ge=1)
    """Give up after this long, queue included; the service has its own limit."""
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    """Mark the answer as abstained when its confidence is lower; absent: the deployment's threshold, 0: never."""
    allow_unlike_training: bool = False
    """Do not mark the answer as abstained for an image that is unlike the training images."""
    modality: Modality | None = None
    """For the router statistics only, as in `/v1/vqa`."""


OWN_FIELDS = (
    *ImageFields.model_fields,
    "include_routing",
    "timeout_ms",
    "min_confidence",
    "allow_unlike_training",
    "modality",
)
"""Fields of this service, with the names and meanings that they have in `/v1/vqa`."""


class ChatMessage(ApiModel):
    role: Literal["assistant"] = "assistant"
    content: str


class TopLogprob(ApiModel):
    token: str
    """Its text; of a special token the name."""
    logprob: float
    """Natural, over the whole vocabulary; -9999 for a token that cannot come."""
    bytes: tuple[int, ...] | None
    """The text as UTF-8; null for a token that is only a part of a character."""


class TokenLogprob(TopLogprob):
    top_logprobs: tuple[TopLogprob, ...]
    """The most likely tokens at this place, the most likely first."""


class ChoiceLogprobs(ApiModel):
    content: tuple[TokenLogprob, ...]
    """The tokens of the answer in order, without outer white space and without the token that ends it. Where a stop
    string begins within a token, that token is the last."""
    refusal: None = None


class ChatChoice(ApiModel):
    index: Literal[0] = 0
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: ChoiceLogprobs | None = None
    """Null unless the request asks for them."""


class PromptTokensDetails(ApiModel):
    cached_tokens: int
    image_tokens: int


class ChatUsage(ApiModel):
    prompt_tokens: int
    """Those of the image included."""
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatDetails(ApiModel):
    """The fields of a `POST /v1/vqa` response that OpenAI's response has no place for."""

    confidence: Confidence | None
    abstained: bool
    unlike_training: UnlikeTraining | None
    timings: Timings
    provenance: SampledProvenance
    routing: Routing | None = None
    ignored_messages: tuple[int, ...] = ()
    """Indices of the messages whose texts were left out, because the checkpoint has no place for them and the
    deployment answers the last question alone (MEDMOE_CHAT_HISTORY)."""


class ChatCompletion(ApiModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Seconds since 1970."""
    model: str
    choices: tuple[ChatChoice]
    usage: ChatUsage
    medmoe: ChatDetails
