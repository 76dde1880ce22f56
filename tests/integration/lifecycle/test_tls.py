"""TLS and mutual TLS on a socket: who gets in, the client's certificates, and the health check."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest

from medmoe.client import AsyncClient
from medmoe.client.errors import CertificateError, ConnectionFailed, UnexpectedAnswer
from medmoe.client.transport.retry import Retry
from medmoe.server.edge.uvicorn_adapter import served_beside
from medmoe.server.healthcheck import is_healthy
from medmoe.server.lifecycle.admin import admin_app, admin_socket
from tests.integration.conftest import image_bytes
from tests.support.service.certificates import DAY, Authority, Pair
from tests.support.service.listening import Listen, Listening

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
