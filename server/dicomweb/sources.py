"""Read the operator's file of DICOMweb sources.

A caller names a source and never a host, so a source may have a private address.
"""

import base64
import contextlib
import re
import ssl
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpcore
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator, model_validator

from medmoe.model.errors import ConfigError
from medmoe.model.files.bounded_read import read_configured, read_secret
from medmoe.server.schemas.inference import SourceName

_SETTING = "MEDMOE_DICOMWEB_SOURCES:"
_PORTS = {"http": 80, "https": 443}
_MAX_FILE_BYTES = 2**20
_PATH = re.compile(r"[\x21-\x7e]*")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_PASSWORD = re.compile(r"[^:\r\n]*:[^\r\n]*")


class _Entry(BaseModel):
    """A table of the file. Paths are relative to the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    """Base of the DICOMweb service, such as https://pacs.hospital.example/dicom-web."""
    password_file: Path | None = None
    """File with `user:password` for HTTP Basic authentication."""
    token_file: Path | None = None
    """File with a bearer token."""
    ca_file: Path | None = None
    """PEM file of the certificate authority to trust instead of the system's."""
    store: bool = False
    """Whether reports may be stored there."""

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("needs http:// or https://, a host and a path, without user, password, query and fragment")
        if not _PATH.fullmatch(parts.path):
            raise ValueError("needs a percent-encoded path")
        _ = parts.port, _host(parts.hostname)  # raise ValueError for a port or a host name that cannot be
        return url.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> "_Entry":
        if self.password_file and self.token_file:
            raise ValueError("needs password_file or token_file, not both")
        if self.ca_file and urlsplit(self.url).scheme != "https":
            raise ValueError("ca_file goes with https://")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A DICOMweb service that the operator trusts."""

    name: str
    origin: httpcore.Origin
    path: str
    """Path of the base URL, without a slash at its end."""
    store: bool
    credential: "Credential | None" = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    """None for http."""

    @property
    def authorization(self) -> bytes | None:
        """Return the value of the Authorization header. Blocks."""
        return None if self.credential is None else self.credential.header()

    @property
    def authority(self) -> bytes:
        """Return the value of the Host header."""
        scheme, host, port = self.origin.scheme.decode(), self.origin.host, self.origin.port
        name = b"[%b]" % host if b":" in host else host
        return name if port == _PORTS[scheme] else b"%b:%d" % (name, port)


class Credential:
    """What a file holds when a request is sent: passwords change, and tokens expire."""

    def __init__(self, path: Path, *, is_token: bool) -> None:
        """Raise ConfigError for a file that cannot be read or holds something else."""
        self._path = path
        self._is_token = is_token
        self._header = self._read()

    def header(self) -> bytes:
        """Return the value of the Authorization header; the last valid one while the file holds none. Blocks."""
        with contextlib.suppress(ConfigError):
            self._header = self._read()
        return self._header

    def _read(self) -> bytes:
        name = "token_file" if self._is_token else "password_file"
        content = read_secret(self._path, name=f"{_SETTING} {name}", limit=_MAX_FILE_BYTES)
        text = _decoded(content, self._path).strip()
        form, noun = (_TOKEN, "a token") if self._is_token else (_PASSWORD, "user:password")
        if not form.fullmatch(text):
            # Without the text, which may be most of a secret.
            raise ConfigError(f"{_SETTING} {self._path} does not hold {noun} in one line, and nothing else")
        return b"Bearer " + text.encode() if self._is_token else b"Basic " + base64.b64encode(text.encode())


def read_sources(path: Path | None) -> dict[str, Source]:
    """Return the sources of a TOML file by name, none without a file. Raises ConfigError."""
    if path is None:
        return {}
    try:
        tables = TypeAdapter(dict[SourceName, _Entry]).validate_python(tomllib.loads(_text(path)))
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ConfigError(f"{_SETTING} {where}: {problem['msg'].removeprefix('Value error, ')}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{_SETTING} {path} is not TOML, {_place(error)}") from error
    return {name: _source(name, entry, path.parent) for name, entry in tables.items()}


def _text(path: Path) -> str:
    return _decoded(read_configured(path, name=_SETTING, limit=_MAX_FILE_BYTES), path)


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeError as error:
        raise ConfigError(f"{_SETTING} {path} is not UTF-8 text") from error


def _place(error: tomllib.TOMLDecodeError) -> str:
    """Return where the error is, such as `at line 1, column 6`, without what stands there."""
    return str(error).rpartition("(")[2].rstrip(")")


def _host(name: str) -> bytes:
    return name.encode("ascii" if name.isascii() else "idna")


def _source(name: str, entry: _Entry, folder: Path) -> Source:
    parts = urlsplit(entry.url)
    assert parts.hostname is not None
    return Source(
        name=name,
        origin=httpcore.Origin(parts.scheme.encode(), _host(parts.hostname), parts.port or _PORTS[parts.scheme]),
        path=parts.path,
        store=entry.store,
        credential=_credential(entry, folder),
        tls=_tls(folder / entry.ca_file if entry.ca_file else None) if parts.scheme == "https" else None,
    )


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpcore.default_ssl_context()
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConfigError(f"{_SETTING} {ca_file} is not a PEM file of certificates that can be read") from error


def _credential(entry: _Entry, folder: Path) -> Credential | None:
    file = entry.password_file or entry.token_file
    return None if file is None else Credential(folder / file, is_token=entry.token_file is not None)
