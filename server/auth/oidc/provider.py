"""Fetch the signing keys of an OpenID Connect provider, and keep them while it cannot be reached.

The keys are fetched at the start, every five minutes, and once for a token whose key is unknown, at most every ten
seconds. A fetch that fails changes nothing: the keys of the last one go on.
"""

import asyncio
import json
import logging
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from medmoe.model.errors import ConfigError
from medmoe.server.auth.errors import ProviderUnavailable
from medmoe.server.auth.oidc.provider_url import discovery_url, is_provider_url
from medmoe.server.auth.oidc.signing_keys import SigningKeys
from medmoe.server.loopback import is_loopback

log = logging.getLogger("medmoe.oidc")

_REFRESH_SECONDS = 300.0
"""A key that the provider withdraws is valid here for so long."""
_RETRY_SECONDS = 10.0
"""Time between attempts after a failure, and between fetches for unknown keys."""
_FETCH_SECONDS = 5.0
_MAX_BYTES = 2**20


class Provider:
    """An OpenID Connect provider."""

    def __init__(self, issuer: str, *, jwks_url: str | None, ca_file: Path | None) -> None:
        """`jwks_url` None: the provider's discovery document names it. Raises ConfigError for an unusable CA file."""
        self._issuer = issuer
        self._jwks_url = jwks_url
        try:
            self._tls = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        except OSError as error:
            raise ConfigError("MEDMOE_OIDC_CA_FILE: not a PEM file of certificates that can be read") from error
        self._keys: SigningKeys | None = None
        self.is_stale = False
        """Whether the last fetch has failed."""
        self._lock = asyncio.Lock()
        self._fetched_for_unknown = float("-inf")

    @property
    def keys(self) -> SigningKeys:
        """Return the signing keys. Raises ProviderUnavailable before they have been fetched once."""
        if self._keys is None:
            raise ProviderUnavailable(retry_after=int(_RETRY_SECONDS))
        return self._keys

    async def watch(self) -> None:
        """Fetch the keys now and again, for ever."""
        while True:
            async with self._lock:
                await self._fetch()
            await asyncio.sleep(_RETRY_SECONDS if self.is_stale else _REFRESH_SECONDS)

    async def look_again(self) -> None:
        """Fetch the keys for a token whose key is unknown, unless that was done shortly before."""
        before = self._keys
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._keys is before and now - self._fetched_for_unknown >= _RETRY_SECONDS:
                self._fetched_for_unknown = now
                await self._fetch()

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                self._keys = SigningKeys.parse(await self._get(self._jwks_url or await self._discovered()))
        except Exception as error:
            # Whatever the provider sends, and no thread left to find its address in; nobody else would fetch again.
            if not self.is_stale:
                # Not the error's own words, which may quote what was sent.
                log.error(
                    "the keys of the identity provider cannot be fetched, and those known stay valid",
                    extra={"fields": {"exception": type(error).__name__, "known": self._keys is not None}},
                )
            self.is_stale = True
            return
        if self.is_stale:
            log.info("the keys of the identity provider are fetched again")
        self.is_stale = False

    async def _discovered(self) -> str:
        """Return the address of the key set (OpenID Connect Discovery 1.0). Raises ValueError."""
        found = json.loads(await self._get(discovery_url(self._issuer)))
        if not isinstance(found, dict) or found.get("issuer") != self._issuer:
            raise ValueError("the discovery document is of another issuer")
        address = str(found.get("jwks_uri"))
        if not is_provider_url(address):
            raise ValueError("the discovery document names no https address of keys")
        return address

    async def _get(self, url: str) -> bytes:
        """Return the document at `url`. Raises ValueError for another status or more than a megabyte."""
        local = is_loopback(urlsplit(url).hostname or "")
        async with (
            httpx.AsyncClient(verify=self._tls, trust_env=not local, timeout=_FETCH_SECONDS) as client,
            client.stream("GET", url, headers={"Accept": "application/json"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ValueError("the provider answers with another status")
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MAX_BYTES:
                    raise ValueError("the provider sends more than a key set")
            return bytes(content)
