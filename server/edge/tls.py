"""Make the TLS context of the service, check its files, and follow their changes.

Connections that are open keep their certificate. A context never changes: handshakes that read one in another thread
would fail, or crash the process.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from cryptography import x509

from medmoe.model.errors import ConfigError
from medmoe.model.files.bounded_read import read_configured, read_secret
from medmoe.server.configuration.strict_environment import variable
from medmoe.server.settings import Settings
from medmoe.server.tasks import DaemonThreads

log = logging.getLogger("medmoe.tls")

_MAX_FILE_BYTES = 2**20
_SECONDS = 10.0
"""Time between two looks at the files."""


class ServerTLS:
    """The TLS context of new connections."""

    def __init__(self, certificate: Path, key: Path, *, client_ca: Path | None) -> None:
        """With `client_ca`, clients need a certificate of one of its authorities. Raises ConfigError."""
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._seen = self._contents()
        self._refused = ""
        """Why the last renewal failed; it is logged once."""
        self.context = self._made()
        """Another one after each renewal."""

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return the context that the settings ask for, None without a certificate. Raises ConfigError."""
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key, client_ca=settings.tls_client_ca)

    @contextlib.asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Take renewed files while inside."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        # A disk that hangs must not keep the process from ending.
        thread = DaemonThreads("certificate")
        try:
            while True:
                await asyncio.sleep(_SECONDS)
                try:
                    await thread.look(self._look, on_hang=lambda: self._refuse("their disk hangs"))
                except Exception as error:
                    # Nobody else would look again.
                    self._refuse(type(error).__name__)
        finally:
            thread.end()

    def _look(self) -> None:
        try:
            found = self._contents()
            if found == self._seen:
                return
            self.context = self._made()
        except (ConfigError, OSError) as error:
            self._refuse(str(error) if isinstance(error, ConfigError) else type(error).__name__)
            return
        self._seen, self._refused = found, ""
        log.info("certificate renewed")

    def _refuse(self, reason: str) -> None:
        if reason != self._refused:
            log.error(
                "the renewed certificate cannot be used, and the old one stays", extra={"fields": {"reason": reason}}
            )
        self._refused = reason

    def _contents(self) -> tuple[bytes, bytes, bytes]:
        certificate = _read("tls_certificate", self._certificate)
        key = read_secret(self._key, name=f"{variable('tls_key')}: the key file", limit=_MAX_FILE_BYTES)
        return certificate, key, b"" if self._client_ca is None else _read("tls_client_ca", self._client_ca)

    def _made(self) -> ssl.SSLContext:
        """Return a context of the present files. Raises ConfigError, OSError."""
        context = _context(self._certificate, self._key)
        if self._client_ca is not None:
            _check_dates("tls_client_ca", self._client_ca)
            try:
                context.load_verify_locations(self._client_ca)
            except ssl.SSLError as error:
                raise ConfigError(
                    f"{variable('tls_client_ca')}: {self._client_ca} holds no usable certificate"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context with a checked certificate. Raises ConfigError."""
    _check_dates("tls_certificate", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{variable('tls_key')}: {key} is not the key of {variable('tls_certificate')}"
            ) from error
        raise ConfigError(f"{variable('tls_key')}: {key} is not a private key in PEM that can be read") from error
    return context


def _no_password() -> str:
    raise ConfigError(f"{variable('tls_key')}: the key is encrypted; give one without a password")


def _check_dates(name: str, path: Path) -> None:
    """Raise ConfigError unless the first certificate of the file is valid today."""
    try:
        first, *_ = x509.load_pem_x509_certificates(_read(name, path))
        begin, end = first.not_valid_before_utc, first.not_valid_after_utc
    except (ValueError, x509.InvalidVersion) as error:
        raise ConfigError(f"{variable(name)}: {path} is not a certificate in PEM") from error
    now = datetime.now(UTC)
    if now > end:
        raise ConfigError(f"{variable(name)}: the certificate has expired on {end:%Y-%m-%d}")
    if now < begin:
        raise ConfigError(f"{variable(name)}: the certificate is valid from {begin:%Y-%m-%d} on")


def _read(name: str, path: Path) -> bytes:
    return read_configured(path, name=f"{variable(name)}:", limit=_MAX_FILE_BYTES)
