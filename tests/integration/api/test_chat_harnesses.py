"""Evaluation harnesses and client libraries ask as they do, and get the answer of /v1/vqa."""

import base64
from typing import Any

from tests.integration.api.test_chat import PATH, QUESTION
from tests.integration.conftest import Service, image_bytes

JPEG = base64.b64encode(image_bytes(kind="JPEG")).decode()
URL = f"data:image/jpeg;base64,{JPEG}"
TEXT = {"type": "text", "text": QUESTION}
REQUESTS: dict[str, dict[str, Any]] = {
    "VLMEvalKit, OpenAIWrapper": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, TEXT]}
        ],
        "n": 1,
        "temperature": 0,
        "max_tokens": 64,
    },
    "lmms-eval, model openai": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}, TEXT]}],
        "max_tokens": 64,
        "temperature": 0,
    },
    "LangChain, ChatOpenAI": {
        "messages": [{"role": "user", "content": [TEXT, {"type": "image_url", "image_url": {"url": URL}}]}],
        "max_completion_tokens": 64,
        "temperature": 0.0,
        "stream": False,
    },
    "LiteLLM, provider openai": {
        "messages": [{"role": "user", "content": [TEXT, {"type": "image_url", "image_url": {"url": URL}}]}],
        "max_tokens": 64,
        "metadata": {},
        "user": "proxy",
    },
}


async def test_requests_as_harnesses_and_libraries_write_them(service: Service) -> None:
    own = (await service.client.post("/v1/vqa", json={"image": JPEG, "question": QUESTION, "max_tokens": 64})).json()
    for name, body in REQUESTS.items():
        response = await service.client.post(PATH, json={"model": "tiny", **body})
        assert response.status_code == 200, f"{name}: {response.text}"
        answer = response.json()
        assert answer["choices"][0]["message"]["content"] == own["answer"], name
        assert answer["medmoe"]["provenance"] == own["provenance"], name
