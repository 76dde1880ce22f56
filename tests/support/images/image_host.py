"""Serve images over HTTPS on this machine with its own certificate authority, and a fetcher that trusts it."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from medmoe.server.imaging.fetch.addresses import Address, Endpoint
from medmoe.server.imaging.fetch.fetcher import ImageFetcher

NAME = "images.example.org"
HERE = ipaddress.ip_address("127.0.0.1")
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(kw_only=True, slots=True)
class ImageHost:
    """Hold the received requests and the answer to the next ones."""

    port: int
    answer: Answer
    heads: list[bytes] = field(default_factory=list)
    """Request line and headers of each request."""
    names: list[str | None] = field(default_factory=list)
    """Server names that TLS clients asked for."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closed its connection before its answer was complete."""
    asked: list[str] = field(default_factory=list)
    """Host names that were resolved for `fetcher`."""

    def fetcher(self, **changes: Any) -> ImageFetcher:
        """Return a fetcher that resolves NAME to this machine; `changes` are arguments of ImageFetcher."""

        async def resolve(host: str) -> tuple[Endpoint, ...]:
            self.asked.append(host)
            return ((HERE, self.port),)

        def may_connect(address: Address) -> bool:
            return address == HERE

        options: dict[str, Any] = {
            "hosts": {NAME},
            "max_bytes": 2**20,
            "seconds": 60.0,
            "at_once": 4,
            "tls": ssl.create_default_context(cadata=_authority()[1].public_bytes(serialization.Encoding.PEM).decode()),
            "resolve": resolve,
            "may_connect": may_connect,
        }
        return ImageFetcher(**options | changes)


@asynccontextmanager
async def image_host(answer: Answer, *, certified: str = NAME) -> AsyncIterator[ImageHost]:
    """Start a host on a free port; `certified` is the name in its certificate."""
    host = ImageHost(port=0, answer=answer)
    tls = _server_context(certified)
    tls.sni_callback = lambda _, name, __: host.names.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            host.heads.append(await reader.readuntil(b"\r\n\r\n"))
            answering = asyncio.ensure_future(host.answer(writer))
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                host.left.set()
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
        except (OSError, EOFError):
            host.left.set()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host.port = server.sockets[0].getsockname()[1]
    async with server:
        yield host


def whole(body: bytes, *, status: str = "200 OK", **headers: str) -> Answer:
    """Return a complete answer; `content_type="a"` is the header Content-Type."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()

    return answer


def raw(data: bytes) -> Answer:
    """Send these bytes and close the connection."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def endless(data: bytes) -> Answer:
    """Send `data`, then nothing until the client disconnects."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.Event().wait()

    return answer


def flood(writer: asyncio.StreamWriter) -> Awaitable[None]:
    """Send a body that never ends."""

    async def answer() -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            await writer.drain()

    return answer()


@cache
def _authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    builder = _builder(name, key.public_key()).issuer_name(name).add_extension(constraints, critical=True)
    return key, builder.sign(key, hashes.SHA256())


def _server_context(certified: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "certificate.pem"
        file.write_bytes(_key_and_certificate(certified))
        context.load_cert_chain(file)
    return context


@cache
def _key_and_certificate(certified: str) -> bytes:
    """PEM."""
    authority_key, authority = _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a host of the tests")])
    builder = _builder(name, key.public_key()).issuer_name(authority.subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(certified)]), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    plain = serialization.NoEncryption()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _builder(name: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
