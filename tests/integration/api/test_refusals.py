"""What a client can send that is refused: one error body, the right status, and not a word that was sent."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.integration.conftest import SECRET, Service, base64_image, check, image_bytes
from tests.support.images.hostile_images import png
from tests.support.images.series_files import ct_slice


async def post(service: Service, body: dict[str, Any], path: str = "/v1/vqa") -> httpx.Response:
    return await service.client.post(path, json=body)


async def test_unknown_routes_are_404(service: Service) -> None:
    check(await service.client.get(f"/{SECRET}"), 404, "not_found")
    check(await service.client.post("/v1/vqa/"), 404, "not_found")


async def test_wrong_methods_are_405_and_name_the_right_one(service: Service) -> None:
    response = await service.client.get("/v1/vqa")
    check(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/health/ready", "/metrics", "/v1/models", "/openapi.json", "/docs", "/"])
async def test_whatever_can_be_read_can_be_asked_for_with_head(service: Service, path: str) -> None:
    assert (await service.client.head(path)).status_code == 200
    assert (await service.client.delete(path)).headers["allow"] == "GET, HEAD"


async def test_head_is_in_no_document(service: Service) -> None:
    document = (await service.client.get("/openapi.json")).json()
    assert not [path for path, methods in document["paths"].items() if "head" in methods]


@pytest.mark.parametrize("body", [b"", b"{", b'{"image": "', b"[" * 5000, b'\xff{"a":1}', b'{"question": "\\ud800"}'])
async def test_a_body_that_is_not_json_is_400(service: Service, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    check(await service.client.post("/v1/vqa", content=body, headers=headers), 400, "malformed_body")


@pytest.mark.parametrize("path", ["/v1/vqa", "/v1/classify", "/v1/chat/completions", "/v1/decisions"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
async def test_a_body_in_another_encoding_is_400_and_told_to_come_in_utf_8(
    service: Service, path: str, encoding: str
) -> None:
    body = '\ufeff{"question": "What?"}'.encode(encoding)
    response = await service.client.post(path, content=body, headers={"content-type": "application/json"})
    check(response, 400, "malformed_body")
    assert "UTF-8" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data", "multipart/form-data; boundary=x"], ids=["no boundary", "no parts"]
)
async def test_a_body_that_is_not_multipart_is_refused(service: Service, content_type: str) -> None:
    response = await service.client.post("/v1/vqa", content=b"garbage", headers={"content-type": content_type})
    check(response, 400, "malformed_body")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_other_content_types_are_415(service: Service, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    check(await service.client.post("/v1/vqa", content=b"{}", headers=headers), 415, "unsupported_content_type")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"question": None}, "question"),
        ({"question": 7}, "question"),
        ({"question": "  \n"}, "question"),
        ({"question": "\u200b\x1c"}, "question"),
        ({"question": "x" * 4001}, "question"),
        ({"image": 7}, "image"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({SECRET: 1}, None),
    ],
    ids=str,
)
async def test_a_bad_value_is_422_and_named(
    service: Service, vqa_body: dict[str, Any], change: dict[str, Any], param: str | None
) -> None:
    check(await post(service, vqa_body | change), 422, "invalid_field", param)


async def test_nan_is_not_a_temperature(service: Service, vqa_body: dict[str, Any]) -> None:
    text = f'{{"image": "{vqa_body["image"]}", "question": "What?", "temperature": NaN}}'
    response = await service.client.post("/v1/vqa", content=text, headers={"content-type": "application/json"})
    check(response, 422, "invalid_field", "temperature")


@pytest.mark.parametrize("missing", ["image", "question"])
async def test_a_missing_field_is_named(service: Service, vqa_body: dict[str, Any], missing: str) -> None:
    del vqa_body[missing]
    check(await post(service, vqa_body), 422, "invalid_field", missing)


@pytest.mark.parametrize(
    ("labels", "param"),
    [
        ([], "labels"),
        (["CT"], "labels"),
        (["CT", "CT"], "labels"),
        (["CT", " CT "], "labels"),
        (["CT", " "], "labels.1"),
        (["CT", "\x1c"], "labels.1"),
        (["CT", "\u200b"], "labels.1"),
        (["CT", "C\u200dT"], "labels"),
        (["Ar\u00e9a", "Are\u0301a"], "labels"),
        (["CT", 5], "labels.1"),
        (["CT", "x" * 201], "labels.1"),
        ([f"label {number}" for number in range(65)], "labels"),
        ("CT, MRI", "labels"),
    ],
    ids=str,
)
async def test_bad_labels_are_422(service: Service, classify_body: dict[str, Any], labels: object, param: str) -> None:
    check(await post(service, classify_body | {"labels": labels}, "/v1/classify"), 422, "invalid_field", param)


@pytest.mark.parametrize("chars", [201, 513, 100_000])
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/explain"])
async def test_a_long_label_is_told_the_limit_that_holds(
    service: Service, classify_body: dict[str, Any], path: str, chars: int
) -> None:
    response = await post(service, classify_body | {"labels": ["CT", "x" * chars]}, path)
    check(response, 422, "invalid_field", "labels.1")
    message = response.json()["error"]["message"]
    assert message == "labels.1: a label is longer than 200 characters (MEDMOE_MAX_LABEL_CHARS)."


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"question": "x" * 4001}, "4000 characters (MEDMOE_MAX_QUESTION_CHARS)"),
        ({"max_tokens": 1025}, "1024 tokens (MEDMOE_MAX_TOKENS)"),
    ],
)
async def test_a_limit_is_named_with_its_setting(
    service: Service, vqa_body: dict[str, Any], change: dict[str, Any], limit: str
) -> None:
    assert limit in (await post(service, vqa_body | change)).json()["error"]["message"]


@pytest.mark.parametrize("files", [0, 2], ids=["none", "two"])
async def test_multipart_wants_exactly_one_image(service: Service, files: int) -> None:
    parts = [("image", ("a.png", image_bytes(), "image/png"))] * files
    response = await service.client.post(
        "/v1/vqa", data={"question": "What?"}, files=parts or {"other": ("b", b"", "text/plain")}
    )
    check(response, 422, "invalid_field", "image")


async def test_multipart_refuses_unknown_and_repeated_fields(service: Service) -> None:
    files = {"image": ("a.png", image_bytes(), "image/png")}
    response = await service.client.post("/v1/vqa", data={"question": "What?", SECRET: "1"}, files=files)
    check(response, 422, "invalid_field")
    response = await service.client.post("/v1/vqa", data={"question": ["What?", "Who?"]}, files=files)
    check(response, 422, "invalid_field", "question")


@pytest.mark.parametrize(
    "text",
    ["%%%", base64_image()[:-3], "data:image/png,abc", "//intra.net/a.png", "b\u00e9=", "a-b+"],
    ids=["alphabet", "truncated", "plain data URL", "path", "not ASCII", "two alphabets"],
)
async def test_a_string_that_is_not_base64_is_400(service: Service, vqa_body: dict[str, Any], text: str) -> None:
    check(await post(service, vqa_body | {"image": text}), 400, "malformed_image", "image")


@pytest.mark.parametrize(
    "data",
    [b"", b"a text file", b"GIF89a", b"%PDF-1.7", bytes(128) + b"DICM"],
    ids=["empty", "txt", "gif", "pdf", "empty dcm"],
)
async def test_other_formats_are_415(service: Service, vqa_body: dict[str, Any], data: bytes) -> None:
    image = base64.b64encode(data).decode()
    check(await post(service, vqa_body | {"image": image}), 415, "unsupported_image", "image")


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (16, 400)], ids=str)
async def test_images_too_small_or_too_long_are_422(
    service: Service, vqa_body: dict[str, Any], size: tuple[int, int]
) -> None:
    check(await post(service, vqa_body | {"image": base64_image(size=size)}), 422, "unreadable_image", "image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
async def test_a_truncated_image_is_422(service: Service, vqa_body: dict[str, Any], kind: str) -> None:
    data = image_bytes((200, 200), kind=kind)
    image = base64.b64encode(data[: len(data) // 2]).decode()
    check(await post(service, vqa_body | {"image": image}), 422, "unreadable_image", "image")


@pytest.mark.parametrize("side", [7000, 12_000, 20_000, 2**31 - 1])
async def test_a_bomb_is_413(service: Service, vqa_body: dict[str, Any], side: int) -> None:
    image = base64.b64encode(png(side, side)).decode()
    check(await post(service, vqa_body | {"image": image}), 413, "image_too_large", "image")


@pytest.mark.parametrize(
    "field",
    ['"labels": [' + "1," * 3_000_000 + "1]", '"question": [' + "[]," * 3_000_000 + "[]]", '"question": {"a": 1}'],
    ids=["numbers", "arrays", "object"],
)
async def test_millions_of_wrong_items_are_refused_as_one(service: Service, field: str) -> None:
    headers = {"content-type": "application/json"}
    body = '{"image": "x", ' + field + "}"
    response = await service.client.post("/v1/classify", content=body, headers=headers)
    check(response, 422, "invalid_field", field.split('"')[1])


async def test_labels_of_too_many_engine_steps_are_refused(service: Service) -> None:
    labels = [chr(0x1F600 + number) * 100 for number in range(40)]
    body = {"image": base64_image(), "labels": labels, "question": "Which?"}
    check(await post(service, body, "/v1/classify"), 422, "invalid_field", "labels")


@pytest.mark.parametrize("charset", ["undefined", "punycode", "utf-7", "idna", "unicode_escape", "latin-1"])
async def test_a_multipart_charset_other_than_utf_8_is_400(service: Service, charset: str) -> None:
    # Of punycode, 0.8 MB took 4 s to decode.
    headers = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    body = b'--b\r\nContent-Disposition: form-data; name="question"\r\n\r\n\xff\xfe\r\n--b--\r\n'
    check(await service.client.post("/v1/vqa", content=body, headers=headers), 400, "malformed_body")


@pytest.mark.parametrize(
    ("window", "reason"),
    [(b"lung\r\n--b--", None), (b"lung\r\n", "closing boundary"), (b"\xfc\r\n--b--\r\n", "not UTF-8 text")],
    ids=["no line break at the end", "cut before the end", "Latin-1"],
)
async def test_no_field_of_a_form_is_lost_or_misread(service: Service, window: bytes, reason: str | None) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b'
    image = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n%b\r\n' % ct_slice(0)
    body = image + part % (b"question", b"What?\r\n") + part % (b"window", window)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = await service.client.post("/v1/vqa", content=body, headers=headers)
    if reason is None:
        assert response.json()["provenance"]["rendering"]["windows"][0]["source"] == "preset"
    else:
        check(response, 400, "malformed_body")
        assert reason in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/vqa", "/v1/render", "/v1/chat/completions"])
async def test_a_field_in_the_address_is_refused_instead_of_ignored(service: Service, path: str) -> None:
    response = await service.client.post(f"{path}?api-version=1&window=lung", json={})
    check(response, 422, "invalid_field", "window")
    if path == "/v1/vqa":
        response = await service.client.post(f"{path}?window=lung", data={"question": "What?"}, files={"image": b"x"})
        check(response, 422, "invalid_field", "window")


@pytest.mark.parametrize(
    "question",
    ["What?", '"What?"', "x" * 5000 + '"', '"' + "x" * 5000, '"' * 70_000],
    ids=lambda text: text[:2] + text[-1],
)
async def test_a_key_that_comes_twice_is_refused_instead_of_chosen(service: Service, question: str) -> None:
    image = base64_image()
    valid = json.dumps({"question": question, "image": image, "window": "lung"}).encode()
    response = await service.client.post("/v1/vqa", content=valid, headers={"content-type": "application/json"})
    assert "twice" not in response.text
    for twice in (
        valid[:-1] + b', "window": "bone"}',
        valid[:-1] + b', "image": "%b"}' % image.encode(),
        b'{"image": {"source": "a", "source": "b"}, ' + valid[1:].replace(b'"image"', b'"x"'),
    ):
        response = await service.client.post("/v1/vqa", content=twice, headers={"content-type": "application/json"})
        check(response, 400, "malformed_body")
        assert "twice" in response.json()["error"]["message"]


async def test_a_compressed_body_is_415_and_told_to_come_plain(service: Service, vqa_body: dict[str, Any]) -> None:
    body = gzip.compress(json.dumps(vqa_body).encode())
    for content_type in ("application/json", "multipart/form-data; boundary=b"):
        headers = {"content-type": content_type, "content-encoding": "gzip"}
        response = await service.client.post("/v1/vqa", content=body, headers=headers)
        check(response, 415, "unsupported_content_type")
        assert response.headers["accept-encoding"] == "identity"
    twice = [("content-type", "application/json"), ("content-encoding", "identity"), ("content-encoding", "gzip")]
    check(await service.client.post("/v1/vqa", content=body, headers=twice), 415, "unsupported_content_type")
    plain = [("content-type", "application/json"), ("content-encoding", "Identity, identity")]
    sent = json.dumps(vqa_body).encode()
    assert (await service.client.post("/v1/vqa", content=sent, headers=plain)).status_code == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": "5"}, "max_tokens"),
        ({"temperature": 2.5}, "temperature"),
        ({"temprature": 0.5}, "did you mean temperature?"),
        ({"maxTokens": 5}, "did you mean max_tokens?"),
    ],
    ids=str,
)
async def test_the_message_alone_names_the_field(
    service: Service, vqa_body: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    message = (await post(service, vqa_body | change)).json()["error"]["message"]
    assert words in message


async def test_a_long_image_counts_as_the_square_it_is_padded_to(service: Service, vqa_body: dict[str, Any]) -> None:
    image = base64_image(size=(6400, 400))
    check(await post(service, vqa_body | {"image": image}), 413, "image_too_large", "image")


async def test_a_large_body_is_413_by_its_declared_length(service: Service) -> None:
    response = await service.client.post(
        "/v1/vqa", content=b"x" * (65 * 2**20), headers={"content-type": "application/json"}
    )
    check(response, 413, "body_too_large")
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=b"])
async def test_a_large_body_is_413_while_it_is_read(service: Service, content_type: str) -> None:
    produced = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal produced
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n\r\n'
        for _ in range(100):
            produced += 2**20
            yield b"x" * 2**20

    response = await service.client.post("/v1/vqa", content=body(), headers={"content-type": content_type})
    check(response, 413, "body_too_large")
    assert produced <= 66 * 2**20
