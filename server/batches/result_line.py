"""Write the lines of result files, as OpenAI has them."""

import contextlib
import secrets

from pydantic_core import from_json, to_json

from medmoe.server.batches.in_process import AppResponse


def answered_line(custom_id: str, response: AppResponse) -> bytes:
    """Return the line of an output or error file, with the body as the route sent it."""
    body = bytes(response.body)
    with contextlib.suppress(ValueError):
        if b"\n" in body:
            body = to_json(from_json(body))
    head = {"id": f"batch_req_{secrets.token_hex(16)}", "custom_id": custom_id}
    answered = {"status_code": response.status, "request_id": response.request_id}
    return b'%s,"response":%s,"body":%s},"error":null}\n' % (to_json(head)[:-1], to_json(answered)[:-1], body)


def expired_line(custom_id: str) -> bytes:
    """Return the line of an error file for a request that was not answered in time."""
    error = {"code": "batch_expired", "message": "The batch expired before this line was answered."}
    head = {"id": f"batch_req_{secrets.token_hex(16)}", "custom_id": custom_id}
    return to_json({**head, "response": None, "error": error}) + b"\n"
