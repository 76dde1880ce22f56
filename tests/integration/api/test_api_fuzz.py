"""The OpenAPI document is true: a short, repeatable run of tests/api_fuzz.py, which has the long one."""

from pathlib import Path

from tests.api_fuzz import fuzz


def test_every_answer_is_what_the_document_says(tmp_path: Path) -> None:
    found = fuzz(tmp_path, examples=4, seed=0)
    assert not found.failures, "\n\n".join(f"{name}\n{text}" for name, text in found.failures.items())
    assert found.requests.total() > 300
    assert {200, 400, 401, 405, 422} <= found.statuses.keys()
    assert {
        "POST /v1/vqa",
        "POST /v1/classify",
        "POST /v1/decisions",
        "GET /v1/router/stats",
        "GET /health/ready",
    } <= found.requests.keys()
