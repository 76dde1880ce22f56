"""POST /v1/chat/completions: the answer of /v1/vqa in the format of OpenAI's API."""

from fastapi import APIRouter, Depends, Request, Response

from medmoe.server.errors import UnsupportedContentType, UnsupportedParameter
from medmoe.server.http.sse import whole_or_streamed
from medmoe.server.inference.openai.chat_request import receive_chat
from medmoe.server.inference.openai.chat_response import ChatAnswer
from medmoe.server.inference.openai.conversation import ConversationRules
from medmoe.server.inference.token_logprobs import TokenLogprobs
from medmoe.server.inference.vqa import answer
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.refusals import IMAGE, NO_MODEL, NOT_JSON, QUESTION, missing, refusals
from medmoe.server.openapi.requests import EXAMPLE_IMAGE, Named, accepts_json
from medmoe.server.openapi.responses import answers_and_stream
from medmoe.server.routes.dependencies import within_rate
from medmoe.server.schemas.openai.chat import ChatCompletion, ChatRequest
from medmoe.server.schemas.vqa import VQAResponse
from medmoe.server.state import State

router = APIRouter(tags=["inference"])

ROUTE = "chat"
_MESSAGE = {
    "role": "user",
    "content": [
        {"type": "text", "text": "What modality is used to take this image?"},
        {"type": "image_url", "image_url": {"url": EXAMPLE_IMAGE}},
    ],
}
_EXAMPLES: Named = {
    "question": {"messages": [_MESSAGE]},
    "every_option": {
        "model": "medmoe-tiny",
        "messages": [_MESSAGE],
        "max_completion_tokens": 32,
        "temperature": 0.7,
        "seed": 7,
        "n": 1,
        "include_routing": True,
        "timeout_ms": 30_000,
        "min_confidence": 0.5,
        "modality": "CT",
    },
    "streamed": {"messages": [_MESSAGE], "stream": True, "stream_options": {"include_usage": True}},
}
_NAMES = {"image": "messages.0.content.1.image_url.url", "question": "messages.0.content"}
_REFUSED = (
    UnsupportedParameter(param="top_p"),
    *NO_MODEL,
    UnsupportedContentType("send application/json"),
)


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses=answers_and_stream("chat", "question", "every_option")
    | refusals(missing("messages"), *IMAGE, *QUESTION, *_REFUSED, names=_NAMES, descriptions=NOT_JSON),
    dependencies=[Depends(within_rate)],
    openapi_extra=accepts_json(ChatRequest, examples=_EXAMPLES),
)
async def chat_completions(request: Request) -> ChatCompletion | Response:
    """Answer a question about one medical image, as OpenAI's API does. Research software, not a medical device.

    A strict subset: a user message with one image and a text; earlier turns and a system message where the checkpoint's
    template has a place for them. Other fields of OpenAI's API are refused by name.
    """
    state, record = State.of(request), RequestRecord.of(request.scope)

    def rules(name: str | None) -> ConversationRules:
        return ConversationRules(
            turns=state.models.find(name).checkpoint.config.prompt.turns,
            fallback=state.settings.chat_history,
            max_chars=state.settings.max_question_chars,
        )

    async with state.receiving():
        chat = await receive_chat(request, rules=rules)
    record.names = chat.names
    model = state.models.choose(chat.fields.model, record)
    deadline = state.deadline(chat.fields.timeout_ms)
    tokens = None if chat.top_logprobs is None else TokenLogprobs(model.checkpoint.prompt, top=chat.top_logprobs)
    pieces = answer(
        model.inference,
        chat.fields,
        image=chat.image,
        deadline=deadline,
        record=record,
        route=ROUTE,
        stop=chat.stop,
        tokens=tokens,
        history=chat.history,
    )
    completion = ChatAnswer(model=model.name, include_usage=chat.include_usage, ignored=chat.ignored, tokens=tokens)
    return await whole_or_streamed(
        request,
        pieces,
        stream=chat.fields.stream,
        deadline=deadline,
        record=record,
        last=VQAResponse,
        whole=completion.whole,
        events=completion.events,
    )
