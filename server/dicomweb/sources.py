"""Read the operator's file of DICOMweb sources.

A caller names a source and never a host, so a source may have a private address.
"""

import base64
import ssl
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpcore
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator, model_validator

from medmoe.model.errors import ConfigError
from medmoe.server.schemas.inference import SourceName

_PORTS = {"http": 80, "https": 443}


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
        _ = parts.port  # raises ValueError for a port that is no number
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_credential(self) -> "_Entry":
        if self.password_file and self.token_file:
            raise ValueError("needs password_file or token_file, not both")
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A DICOMweb service that the operator trusts."""

    name: str
    origin: httpcore.Origin
    path: str
    """Path of the base URL, without a slash at its end."""
    store: bool
    authorization: bytes | None = field(default=None, repr=False)
    """Value of the Authorization header."""
    tls: ssl.SSLContext | None = None
    """None for http."""


def read_sources(path: Path | None) -> dict[str, Source]:
    """Return the sources of a TOML file by name, none without a file. Raises ConfigError."""
    if path is None:
        return {}
    try:
        tables = TypeAdapter(dict[SourceName, _Entry]).validate_python(tomllib.loads(path.read_text("utf-8-sig")))
        return {name: _source(name, entry, path.parent) for name, entry in tables.items()}
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ConfigError(
            f"MEDMOE_DICOMWEB_SOURCES: {where}: {problem['msg'].removeprefix('Value error, ')}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"MEDMOE_DICOMWEB_SOURCES: {path} is not TOML, {_place(error)}") from error
    except (OSError, UnicodeError, ssl.SSLError) as error:
        # Not the error's own words: a line of a credentials file could be among them.
        reason = getattr(error, "strerror", None) or "not the file that was expected there"
        name = getattr(error, "filename", None) or path
        raise ConfigError(f"MEDMOE_DICOMWEB_SOURCES: {name} cannot be read: {reason}") from error


def _place(error: tomllib.TOMLDecodeError) -> str:
    """Return where the error is, such as `at line 1, column 6`, without what stands there."""
    return str(error).rpartition("(")[2].rstrip(")")


def _source(name: str, entry: _Entry, folder: Path) -> Source:
    parts = urlsplit(entry.url)
    assert parts.hostname is not None
    host = parts.hostname.encode("idna" if not parts.hostname.isascii() else "ascii")
    tls = None
    if parts.scheme == "https":
        tls = ssl.create_default_context(cafile=str(folder / entry.ca_file)) if entry.ca_file else _system_tls()
    return Source(
        name=name,
        origin=httpcore.Origin(parts.scheme.encode(), host, parts.port or _PORTS[parts.scheme]),
        path=parts.path,
        store=entry.store,
        authorization=_authorization(entry, folder),
        tls=tls,
    )


def _system_tls() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


def _authorization(entry: _Entry, folder: Path) -> bytes | None:
    if entry.password_file:
        return b"Basic " + base64.b64encode((folder / entry.password_file).read_text().strip().encode())
    if entry.token_file:
        return b"Bearer " + (folder / entry.token_file).read_text().strip().encode("ascii")
    return None
