"""Tokens of an identity provider over HTTP: who is let in, rotation of its keys, and what happens without it."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from medmoe.server.auth.key_file import new_key
from medmoe.server.auth.oidc import provider as provider_module
from medmoe.server.observability.json_log import JsonFormatter
from tests.integration.conftest import Service, ServiceFactory, check
from tests.support.service.identity_provider import (
    AUDIENCE,
    IdentityProvider,
    claims,
    identity_provider,
    jwk,
    rsa_key,
    signed,
)

KEY, LINE = new_key("robot")


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        yield provider


@pytest.fixture
def settings(provider: IdentityProvider) -> dict[str, Any]:
    return {"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status(service: Service, token: str, path: str = "/v1/models") -> int:
    return (await service.client.get(path, headers=bearer(token))).status_code


async def fetched(service: Service) -> None:
    subjects = service.state.authenticator.subjects
    assert subjects is not None
    async with asyncio.timeout(60):
        while subjects.provider._keys is None:
            await asyncio.sleep(0.01)


async def test_tokens_and_keys_let_in_by_their_scopes(
    running: ServiceFactory,
    provider: IdentityProvider,
    settings: dict[str, Any],
    tmp_path: Path,
    vqa_body: dict[str, Any],
) -> None:
    (tmp_path / "keys").write_text(f"{LINE}\n")
    async with running(api_keys=tmp_path / "keys", **settings) as service:
        for credential in (KEY, provider.token()):
            answer = await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(credential))
            assert answer.status_code == 200, answer.text
            assert await status(service, credential, "/metrics") == 200
        assert provider.asked == ["/.well-known/openid-configuration", "/keys"]
        asks = provider.token(scope="ask")
        assert await status(service, asks) == 200
        refused = await service.client.get("/metrics", headers=bearer(asks))
        check(refused, 403, "insufficient_scope")
        assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="stats"'
        check(await service.client.get("/v1/models"), 401, "invalid_api_key")


async def test_the_documentation_names_the_provider_and_the_certificate(
    running: ServiceFactory, provider: IdentityProvider, settings: dict[str, Any], tmp_path: Path
) -> None:
    certificates = {name: tmp_path / name for name in ("tls_certificate", "tls_key", "tls_client_ca")}
    async with running(**settings, **certificates) as service:
        described = (await service.client.get("/openapi.json", headers=bearer(provider.token(scope=None)))).json()
    schemes = described["components"]["securitySchemes"]
    assert schemes["OpenIDConnect"]["openIdConnectUrl"] == f"{provider.issuer}/.well-known/openid-configuration"
    assert schemes["MutualTLS"] == {"type": "mutualTLS"}
    security = described["paths"]["/v1/vqa"]["post"]["security"]
    assert security == [{"HTTPBearer": [], "MutualTLS": []}, {"OpenIDConnect": [], "MutualTLS": []}]
    assert "security" not in described["paths"]["/health/live"]["get"]


async def test_a_refusal_says_why_as_rfc_6750_does(
    running: ServiceFactory, provider: IdentityProvider, settings: dict[str, Any]
) -> None:
    async with running(**settings) as service:
        await fetched(service)
        asked = len(provider.asked)
        offered = jwk(rsa_key(1), kid="rsa")
        for token, reason in (
            (provider.token(exp=1), "the token has expired"),
            (provider.token(aud="account"), "the token is for another audience"),
            (signed(claims(provider.issuer), key=rsa_key(1)), "the signature of the token is not valid"),
            (
                signed(claims(provider.issuer), key=rsa_key(1), jku=f"{provider.issuer}/theirs", jwk=offered),
                "the signature of the token is not valid",
            ),
        ):
            refused = await service.client.get("/v1/models", headers=bearer(token))
            check(refused, 401, "invalid_token")
            assert refused.headers["www-authenticate"] == f'Bearer error="invalid_token", error_description="{reason}"'
        assert len(provider.asked) == asked


async def test_a_rotation_of_the_providers_keys_is_followed_and_a_flood_of_unknown_keys_is_not(
    running: ServiceFactory, provider: IdentityProvider, settings: dict[str, Any]
) -> None:
    async with running(**settings | {"oidc_jwks_url": f"{provider.issuer}/keys"}) as service:
        await fetched(service)
        next_key = rsa_key(1)
        provider.keys = [jwk(rsa_key(), kid="rsa"), jwk(next_key, kid="next")]
        token = signed(claims(provider.issuer), key=next_key, kid="next")
        assert await asyncio.gather(*(status(service, token) for _ in range(5))) == [200] * 5
        assert provider.asked == ["/keys"] * 2
        assert await status(service, provider.token()) == 200
        unknown = signed(claims(provider.issuer), key=next_key, kid="unknown")
        assert await asyncio.gather(*(status(service, unknown) for _ in range(20))) == [401] * 20
        assert provider.asked == ["/keys"] * 2


@contextmanager
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(provider_module, "_REFRESH_SECONDS", 0.02)
        patch.setattr(provider_module, "_RETRY_SECONDS", 0.02)
        yield


async def test_without_the_provider_the_keys_known_go_on_and_its_withdrawn_keys_end_with_it_again(
    running: ServiceFactory,
    provider: IdentityProvider,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider.fails = True
    with hurried(monkeypatch):
        async with running(**settings) as service:
            refused = await service.client.get("/v1/models", headers=bearer(provider.token()))
            check(refused, 503, "identity_provider_unavailable")
            assert int(refused.headers["retry-after"]) >= 0
            provider.fails = False
            await fetched(service)
            assert await status(service, provider.token()) == 200
            for broken in (None, b"<html>", b'{"keys": []}'):
                provider.fails, provider.document = broken is None, broken
                before = len(provider.asked)
                while len(provider.asked) < before + 4:
                    await asyncio.sleep(0.01)
                metrics = await service.client.get("/metrics", headers=bearer(provider.token()))
                assert metrics.status_code == 200
                assert "medmoe_oidc_keys_stale 1.0" in metrics.text
            provider.document = None
            provider.keys = [jwk(rsa_key(1), kid="next")]
            async with asyncio.timeout(60):
                while await status(service, provider.token()) == 200:
                    await asyncio.sleep(0.01)
    # One line for each outage, not for each attempt.
    assert len([record for record in caplog.records if "cannot be fetched" in record.message]) == 2


async def test_a_proxy_that_needs_a_missing_package_is_an_outage_that_the_log_names(
    running: ServiceFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    async with running(oidc_issuer="https://provider.example", oidc_audience=AUDIENCE) as service:
        token = signed(claims("https://provider.example"))
        check(await service.client.get("/v1/models", headers=bearer(token)), 503, "identity_provider_unavailable")
    assert "cannot be fetched" in caplog.text


async def test_a_document_of_another_issuer_is_not_believed(
    running: ServiceFactory, provider: IdentityProvider, settings: dict[str, Any]
) -> None:
    async with running(**settings | {"oidc_issuer": f"{provider.issuer}/"}) as service:
        token = signed(claims(f"{provider.issuer}/"))
        check(await service.client.get("/v1/models", headers=bearer(token)), 503, "identity_provider_unavailable")
        assert "/keys" not in provider.asked


async def test_two_subjects_share_no_cache_and_no_rate(
    running: ServiceFactory,
    provider: IdentityProvider,
    settings: dict[str, Any],
    tmp_path: Path,
    vqa_body: dict[str, Any],
) -> None:
    # A name of the key file that is also a subject's.
    key, line = new_key("ward-7")
    (tmp_path / "keys").write_text(f"{line}\n")
    async with running(api_keys=tmp_path / "keys", requests_per_minute=2, **settings) as service:
        salts = []
        for credential in (
            provider.token(sub="ward-7"),
            provider.token(sub="ward-8"),
            key,
            provider.token(sub="ward-7"),
        ):
            answer = await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(credential))
            assert answer.status_code == 200
            assert service.engine.last_request is not None
            salts.append(service.engine.last_request.cache_salt)
        assert len(set(salts)) == 3
        assert salts[0] == salts[3]
        metrics = (await service.client.get("/metrics", headers=bearer(key))).text
        assert 'medmoe_images_total{source="decoded"} 3.0' in metrics
        spent = await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(provider.token(sub="ward-7")))
        check(spent, 429, "rate_limited")
        assert (await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(key))).status_code == 200


async def test_nothing_of_a_token_is_written(
    running: ServiceFactory,
    provider: IdentityProvider,
    settings: dict[str, Any],
    vqa_body: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "canary-7f2a"
    private = {"sub": f"{canary}-subject", "email": f"{canary}@hospital.example", "jti": canary}
    tokens = [
        provider.token(**private),
        provider.token(**private, exp=1),
        provider.token(**private, aud=canary),
        provider.token(**private, iss=f"https://{canary}.example"),
        signed(claims(provider.issuer, **private), kid=canary),
        signed(claims(provider.issuer, **private), key=rsa_key(1)),
    ]
    async with running(**settings) as service:
        answers = [await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(token)) for token in tokens]
        assert [answer.status_code for answer in answers] == [200, 401, 401, 401, 401, 401]
        metrics = await service.client.get("/metrics", headers=bearer(provider.token()))
    own = [record for record in caplog.records if record.name.startswith("medmoe")]
    written = [JsonFormatter().format(record) for record in caplog.records]
    told = [part for answer in answers for part in (answer.text, str(answer.headers))]
    assert own
    for text in (*written, *told, metrics.text):
        assert canary not in text
        assert not [token for token in tokens if any(part in text for part in token.split("."))]
