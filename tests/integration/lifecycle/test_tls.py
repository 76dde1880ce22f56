"""TLS and mutual TLS on a socket: who gets in, the client's certificates, and the health check."""

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from medmoe.client import AsyncClient
from medmoe.client.errors import CertificateError, ConnectionFailed, UnexpectedAnswer
from medmoe.client.transport.retry import Retry
from medmoe.server.edge.limits import ConnectionLimits
from medmoe.server.edge.tls import ServerTLS
from medmoe.server.edge.uvicorn_adapter import served_beside
from medmoe.server.healthcheck import is_healthy
from medmoe.server.lifecycle.admin import admin_app, admin_socket
from tests.integration.conftest import image_bytes
from tests.support.service.certificates import DAY, Authority, Pair
from tests.support.service.listening import LIVE, Connection, Listen, Listening, post

ONCE = Retry(attempts=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(folder=tmp_path)


@pytest.fixture
def tls(authority: Authority) -> dict[str, Any]:
    pair = authority.issue("service")
    return {"tls_certificate": pair.certificate, "tls_key": pair.key}


def url(listening: Listening, scheme: str = "https") -> str:
    return f"{scheme}://127.0.0.1:{listening.port}"


async def status(listening: Listening, context: ssl.SSLContext) -> int:
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as client:
        return (await client.get(f"{url(listening)}/health/live")).status_code


def trusting(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_the_service_speaks_tls_alone(
    listening: Listen, authority: Authority, tls: dict[str, Any], vqa_body: dict[str, Any]
) -> None:
    async with listening(**tls) as found:
        assert found.service.state.settings.url.startswith("https://")
        async with AsyncClient(url(found), ca_file=authority.certificate) as client:
            assert (await client.ready()).status == "ready"
        async with httpx.AsyncClient(verify=trusting(authority), trust_env=False, timeout=60) as plain:
            answer = await plain.post(f"{url(found)}/v1/vqa", json=vqa_body | {"stream": True})
            assert answer.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client_of_http:
                await client_of_http.get(f"{url(found, 'http')}/health/live")
        old = trusting(authority)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            await status(found, old)
        environment = {"MEDMOE_PORT": str(found.port)}
        certified = environment | {"MEDMOE_TLS_CERTIFICATE": "tls.crt"}
        assert await asyncio.to_thread(is_healthy, "ready", certified)
        assert await asyncio.to_thread(is_healthy, "live", certified)
        assert not await asyncio.to_thread(is_healthy, "ready", environment)


async def test_the_wrong_scheme_is_told_in_one_line(
    listening: Listen, authority: Authority, tls: dict[str, Any]
) -> None:
    for settings, scheme, kind, hint in (
        (tls, "http", ConnectionFailed, "if it speaks TLS, begin its address with https://"),
        ({}, "https", UnexpectedAnswer, "does not speak TLS; if that is right, begin its address with http://"),
    ):
        async with (
            listening(**settings) as found,
            AsyncClient(url(found, scheme), ca_file=authority.certificate, retry=ONCE) as client,
        ):
            for asking in (client.models(), client.ask(image_bytes() + bytes(2**20), "What?")):
                with pytest.raises(kind, match=f"^[^\n]*{hint}$"):
                    await asking


async def test_a_client_without_a_valid_certificate_of_the_authority_is_refused(
    listening: Listen, authority: Authority, tls: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    other = Authority(folder=tmp_path / "others", name="authority")
    async with listening(**tls, tls_client_ca=authority.certificate) as found:
        good = authority.issue("ward", client=True)
        assert await status(found, trusting(authority, good)) == 200
        refused = {
            "none": None,
            "expired": authority.issue("expired", client=True, begin=-3 * DAY, end=-DAY / 2),
            "not yet valid": authority.issue("early", client=True, begin=DAY / 2),
            "another authority's": other.issue("stranger", client=True),
            "a server's": authority.issue("server"),
        }
        for pair in refused.values():
            with pytest.raises(httpx.TransportError):
                await status(found, trusting(authority, pair))
        async with AsyncClient(url(found), ca_file=authority.certificate, retry=ONCE) as client:
            with pytest.raises(ConnectionFailed, match="set MEDMOE_CLIENT_CERTIFICATE"):
                await client.models()
        async with AsyncClient(url(found), retry=ONCE) as client:
            with pytest.raises(CertificateError, match="set MEDMOE_CA_FILE"):
                await client.models()
        async with AsyncClient(
            url(found), ca_file=authority.certificate, client_certificate=good.certificate, client_key=good.key
        ) as client:
            assert (await client.models()).data


async def test_the_health_check_of_a_service_that_wants_certificates_asks_the_admin_socket(
    listening: Listen, authority: Authority, tls: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"
    environment = {"MEDMOE_TLS_CLIENT_CA": "ca.crt", "MEDMOE_ADMIN_SOCKET": str(path)}
    async with listening(**tls, tls_client_ca=authority.certificate) as found:
        state = found.service.state
        with admin_socket(path) as socket:
            async with served_beside(admin_app(state), socket):
                assert await asyncio.to_thread(is_healthy, "ready", environment)
                state.readiness.drain()
                assert not await asyncio.to_thread(is_healthy, "ready", environment)
                assert await asyncio.to_thread(is_healthy, "live", environment)
        assert not await asyncio.to_thread(is_healthy, "live", environment)


async def test_a_renewed_certificate_is_that_of_new_connections(
    listening: Listen, authority: Authority, tls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ServerTLS] = []
    of = ServerTLS.of
    monkeypatch.setattr(ServerTLS, "of", lambda settings: made.append(found := of(settings)) or found)

    async def opened() -> tuple[Connection, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port, ssl=trusting(authority))
        subject = writer.get_extra_info("peercert")["subject"]
        return Connection(reader=reader, writer=writer), dict(part[0] for part in subject)["commonName"]

    async with listening(**tls) as found:
        before, name = await opened()
        assert name == "service"
        renewed = authority.issue("renewed")
        for setting, path in (("tls_certificate", renewed.certificate), ("tls_key", renewed.key)):
            tls[setting].write_bytes(path.read_bytes())
        await asyncio.to_thread(made[0]._look)
        after, name = await opened()
        assert name == "renewed"
        for connection in (before, after):
            connection.writer.write(LIVE)
            assert (await connection.answer()).status == 200
            connection.writer.close()


async def gone(reader: asyncio.StreamReader) -> bool:
    """That the service has closed or broken the connection."""
    async with asyncio.timeout(30):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x00\xa5\x01\x00\x00"], ids=["none", "start"])
async def test_a_handshake_that_is_not_done_takes_no_place_and_no_longer_than_a_head(
    listening: Listen, authority: Authority, tls: dict[str, Any], sent: bytes
) -> None:
    limits = ConnectionLimits(max_connections=4, head_seconds=3)
    async with listening(**tls, limits=limits) as found:
        opened = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(6)]
        for _, writer in opened:
            writer.write(sent)
        assert await gone(opened[0][0])
        assert await status(found, trusting(authority)) == 200
        # The last one has kept its place, and is given up in time.
        assert await gone(opened[-1][0])
        for _, writer in opened:
            writer.close()


async def test_a_service_that_is_full_refuses_by_name(
    listening: Listen, authority: Authority, tls: dict[str, Any], vqa_body: dict[str, Any]
) -> None:
    context = trusting(authority)
    async with listening(**tls, limits=ConnectionLimits(max_connections=1)) as found:
        # Its body does not come to an end, so it is never idle.
        asked = asyncio.open_connection("127.0.0.1", found.port, ssl=context)
        _, busy = await asked
        busy.write(post("Content-Type: application/json", length=1000))
        await asyncio.sleep(0.2)
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as client:
            for _ in range(40):
                refused = await client.post(f"{url(found)}/v1/vqa", json=vqa_body)
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
                assert "retry-after" in refused.headers
        silent = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(20)]
        left = [await gone(reader) for reader, _ in silent[16:]]
        assert left == [True] * 4, "what is only refused is bounded too"
        for writer in (busy, *(writer for _, writer in silent)):
            writer.transport.abort()
        await asyncio.sleep(0.2)
        assert await status(found, context) == 200


async def test_a_handshake_that_fails_leaves_nothing(
    listening: Listen, authority: Authority, tls: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    limits = ConnectionLimits(max_connections=2)
    async with listening(**tls, limits=limits) as found:
        for sent in (LIVE, b"\x16\x03\x01", b"", bytes(300)):
            for _ in range(3):
                async with found.connected() as connection:
                    connection.writer.write(sent)
                    await connection.writer.drain()
                    if sent in (LIVE, bytes(300)):
                        assert await gone(connection.reader)
        assert await status(found, trusting(authority)) == 200
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_request_right_behind_the_handshake_is_answered(
    listening: Listen, authority: Authority, tls: dict[str, Any]
) -> None:
    async with listening(**tls) as found:
        context = trusting(authority)
        ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(theirs, ours, server_hostname="localhost")
        async with found.connected() as connection:
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    connection.writer.write(ours.read())
                    theirs.write(await asyncio.wait_for(connection.reader.read(2**16), 60))
            client.write(LIVE)
            # One segment: the end of the handshake and the request.
            connection.writer.write(ours.read())
            answer = b""
            while b"200 OK" not in answer:
                theirs.write(await asyncio.wait_for(connection.reader.read(2**16), 60))
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += client.read(2**16)
