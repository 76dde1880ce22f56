"""Both clients against a real HTTP service that refuses, says when to come back, breaks off, or says nothing."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from medmoe.client import (
    AsyncClient,
    Client,
    ClientError,
    ConnectionFailed,
    Instance,
    Overloaded,
    Retry,
    ServiceFailed,
    ServiceUnavailable,
    Timeout,
    UnexpectedAnswer,
)
from tests.integration.conftest import image_bytes
from tests.support.service.scripted_service import Reply, ScriptedService, refusal, scripted_service

Answer = TypeVar("Answer")

MODELS = Reply(body=json.dumps({"object": "list", "data": []}).encode())
FULL = {"type_": "overloaded_error"}
AWAY = {"type_": "unavailable_error"}
PIECE = b'data: {"delta": "no"}\n\n'


class Asker:
    """One of the two clients, with pauses that are noted and not waited for."""

    def __init__(self, service: ScriptedService, *, blocking: bool, **options: Any) -> None:
        self.pauses: list[float] = []
        self._service = service
        self._blocking = blocking
        self._options = {"api_key": "", "retry": Retry(attempts=4, first_pause=1, longest_pause=2)} | options

    def models(self) -> None:
        self._run(lambda client: client.models(), lambda client: client.models())

    def ask(self) -> None:
        self._run(lambda client: client.ask(image_bytes(), "What?"), lambda client: client.ask(image_bytes(), "What?"))

    def change(self, name: str) -> None:
        given = ("new",) if name == "load_checkpoint" else ()
        self._run(lambda client: getattr(client, name)(*given), lambda client: getattr(client, name)(*given))

    def store(self, **options: Any) -> None:
        image = Instance(source="pacs", study="1.2", series="1.3", instance="1.4")
        self._run(
            lambda client: client.ask(image, "What?", store="pacs", **options),
            lambda client: client.ask(image, "What?", store="pacs", **options),
        )

    def stream(self) -> list[Any]:
        seen: list[Any] = []

        async def listen(client: AsyncClient) -> None:
            async for event in client.stream(image_bytes(), "What?"):
                seen.append(event)

        self.seen = seen
        self._run(lambda client: seen.extend(client.stream(image_bytes(), "What?")), listen)
        return seen

    def _run(
        self, blocking: Callable[[Client], Any], unblocking: Callable[[AsyncClient], Coroutine[Any, Any, Any]]
    ) -> None:
        if self._blocking:
            with Client(self._service.url, sleep=self.pauses.append, **self._options) as client:
                blocking(client)
            return

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        async def whole() -> None:
            async with AsyncClient(self._service.url, sleep=sleep, **self._options) as other:
                await unblocking(other)

        asyncio.run(whole())


pytestmark = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "asyncio"])


def test_a_full_service_is_asked_again_when_it_said(blocking: bool) -> None:
    with scripted_service(refusal(429, "overloaded", **FULL, **{"Retry-After": "7"}), MODELS) as service:
        asker = Asker(service, blocking=blocking)
        asker.models()
        assert len(service.asked) == 2
        (pause,) = asker.pauses
        assert 7 <= pause <= 8


def test_a_date_is_as_good_as_a_number(blocking: bool) -> None:
    headers = {"Date": "Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2026 07:28:20 GMT"}
    with scripted_service(refusal(503, "engine_restarting", **AWAY, **headers), MODELS) as service:
        asker = Asker(service, blocking=blocking)
        asker.models()
        assert 20 <= asker.pauses[0] <= 21


def test_without_a_time_pauses_grow(blocking: bool) -> None:
    with scripted_service(
        refusal(503, "not_ready", **AWAY), Reply(drop=True), Reply(status=503, body=b"<html>"), MODELS
    ) as service:
        asker = Asker(service, blocking=blocking)
        asker.models()
        assert len(service.asked) == 4
        for pause, longest in zip(asker.pauses, (1, 2, 2), strict=True):
            assert longest / 2 <= pause <= longest


def test_the_whole_question_is_sent_again(blocking: bool) -> None:
    with scripted_service(refusal(429, "overloaded", **FULL), refusal(422, "invalid_field", type_="x")) as service:
        with pytest.raises(ClientError):
            Asker(service, blocking=blocking).ask()
        first, second = service.asked
        assert first[2].count(image_bytes()) == second[2].count(image_bytes()) == 1
        assert b"What?" in second[2]


def test_after_the_last_attempt_the_refusal_is_raised(blocking: bool) -> None:
    with scripted_service(refusal(429, "rate_limited", **FULL, **{"Retry-After": "1"})) as service:
        with pytest.raises(Overloaded) as raised:
            Asker(service, blocking=blocking).models()
        assert (raised.value.code, raised.value.retry_after) == ("rate_limited", 1.0)
        assert len(service.asked) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500, 504])
def test_nothing_else_is_asked_twice(blocking: bool, status: int) -> None:
    with scripted_service(refusal(status, "x", type_="unknown", **{"Retry-After": "1"})) as service:
        asker = Asker(service, blocking=blocking)
        with pytest.raises(ClientError):
            asker.models()
        assert len(service.asked) == 1
        assert not asker.pauses


def test_a_restart_behind_a_proxy_is_waited_for(blocking: bool) -> None:
    gateway = Reply(status=502, body=b"<html>502 Bad Gateway</html>")
    with scripted_service(gateway, gateway, MODELS) as service:
        Asker(service, blocking=blocking).models()
        assert len(service.asked) == 3
    with scripted_service(refusal(502, "source_refused", type_="server_error")) as service:
        with pytest.raises(ServiceFailed):
            Asker(service, blocking=blocking).models()
        assert len(service.asked) == 1


def test_a_redirect_is_not_followed_with_an_image_and_a_key(blocking: bool) -> None:
    with scripted_service(Reply(status=307, headers={"Location": "https://ct@medmoe.example:8443/v1"})) as service:
        with pytest.raises(ClientError, match=r"set MEDMOE_URL to .*, https://medmoe\.example:8443 perhaps"):
            Asker(service, blocking=blocking, api_key="secret").ask()
        assert [path for path, _, _ in service.asked] == ["/v1/vqa"]
        assert service.asked[0][1]["Authorization"] == "Bearer secret"


CHANGES = ["load_checkpoint", "activate_checkpoint", "rollback_checkpoint", "unload_checkpoint"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "reply", [Reply(drop=True), Reply(status=502, body=b"<html>"), refusal(503, "audit_unavailable", **AWAY)]
)
def test_a_change_that_may_have_been_made_is_not_asked_for_again(blocking: bool, change: str, reply: Reply) -> None:
    with scripted_service(reply) as service:
        with pytest.raises((ConnectionFailed, ServiceUnavailable)) as raised:
            Asker(service, blocking=blocking).change(change)
        assert len(service.asked) == 1
        assert ("may have done it" in str(raised.value)) is reply.drop


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_was_refused_for_now_is_asked_for_again(blocking: bool, change: str) -> None:
    with scripted_service(refusal(429, "overloaded", **FULL), refusal(409, "standby_conflict", type_="x")) as service:
        with pytest.raises(ClientError):
            Asker(service, blocking=blocking).change(change)
        assert len(service.asked) == 2


def test_a_report_on_an_answer_by_chance_is_not_stored_twice(blocking: bool) -> None:
    for options, times in (({"temperature": 0.7}, 1), ({"temperature": 0.7, "seed": 1}, 4), ({}, 4)):
        with scripted_service(Reply(drop=True)) as service:
            with pytest.raises(ConnectionFailed):
                Asker(service, blocking=blocking).store(**options)
            assert len(service.asked) == times


def test_a_wait_beyond_the_time_for_all_of_it_is_not_begun(blocking: bool) -> None:
    with scripted_service(refusal(429, "overloaded", **FULL, **{"Retry-After": "3600"})) as service:
        asker = Asker(service, blocking=blocking, timeout=60)
        with pytest.raises(Overloaded):
            asker.models()
        assert len(service.asked) == 1
        assert not asker.pauses


@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_a_time_limit_may_be_endless(blocking: bool, seconds: float) -> None:
    with scripted_service(MODELS) as service:
        Asker(service, blocking=blocking, timeout=seconds).models()
        assert len(service.asked) == 1


@pytest.mark.parametrize("way", ["models", "ask", "stream"])
def test_a_service_that_says_nothing_is_left(blocking: bool, way: str) -> None:
    with scripted_service(Reply(hang=True)) as service:
        with pytest.raises(Timeout):
            getattr(Asker(service, blocking=blocking, timeout=0.3), way)()
        # None where this machine was so busy that the time passed before anything was sent.
        assert len(service.asked) <= 1


def test_nobody_there_is_asked_as_often_as_said(blocking: bool) -> None:
    with scripted_service(MODELS) as service:
        pass
    asker = Asker(service, blocking=blocking)
    with pytest.raises(ConnectionFailed, match=service.url):
        asker.models()
    assert len(asker.pauses) == 3


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b"[]", b""])
def test_an_answer_that_is_none_is_said_to_be_so(blocking: bool, body: bytes) -> None:
    with scripted_service(Reply(body=body)) as service:
        with pytest.raises(UnexpectedAnswer):
            Asker(service, blocking=blocking).models()
        assert len(service.asked) == 1


def test_a_stream_is_asked_for_again_only_before_it_begins(blocking: bool) -> None:
    broken = Reply(body=PIECE, drop=True)
    with scripted_service(refusal(503, "not_ready", **AWAY), broken) as service:
        asker = Asker(service, blocking=blocking)
        with pytest.raises(ConnectionFailed):
            asker.stream()
        assert [event.text for event in asker.seen] == ["no"]
        assert len(service.asked) == 2


def test_an_error_event_ends_a_stream(blocking: bool) -> None:
    error = refusal(503, "engine_dead", **AWAY).body
    with scripted_service(Reply(body=PIECE + b"data: " + error + b"\n\n")) as service:
        asker = Asker(service, blocking=blocking)
        with pytest.raises(ServiceUnavailable) as raised:
            asker.stream()
        assert raised.value.code == "engine_dead"
        assert len(asker.seen) == len(service.asked) == 1


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://[::1", "ftp://u:secret@127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_named_unless_none_is_needed(
    monkeypatch: pytest.MonkeyPatch, blocking: bool, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with scripted_service(MODELS) as service:
        Asker(service, blocking=blocking).models()
        service.url = "http://medmoe.example"
        with pytest.raises(ValueError, match="ALL_PROXY") as raised:
            Asker(service, blocking=blocking).models()
        assert "secret" not in str(raised.value)


def test_a_service_on_this_machine_is_asked_without_the_networks_proxy(
    monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    with scripted_service(refusal(503, "proxy_error", **AWAY)) as proxy, scripted_service(MODELS) as service:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        Asker(service, blocking=blocking).models()
        service.url = service.url.replace("127.0.0.1", "localhost")
        Asker(service, blocking=blocking).models()
        assert len(service.asked) == 2
        assert not proxy.asked
