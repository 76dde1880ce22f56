"""Derive the keys of an audit trail from the operator's key file.

Clients choose the bytes whose digests a trail shows. A key for each purpose keeps them from learning a record's code.
"""

import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from medmoe.model.errors import ConfigError
from medmoe.model.files.bounded_read import read_secret

_KEY = re.compile(rb"[0-9a-fA-F]{64}")
_MAX_FILE_BYTES = 1024
_MAKE = "openssl rand -hex 32"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class AuditKeys:
    """The derived keys, 32 bytes each."""

    chain: bytes
    image: bytes
    uid: bytes

    @classmethod
    def from_file(cls, path: Path, *, named_by: str) -> Self:
        """Read 64 hexadecimal digits and derive the keys. Raises ConfigError, which begins with `named_by`."""
        text = read_secret(path, name=f"{named_by}: the key file", limit=_MAX_FILE_BYTES).strip()
        if _KEY.fullmatch(text) is None:
            raise ConfigError(f"{named_by}: {path} is not 64 hexadecimal digits; make them with `{_MAKE}`")
        key = bytes.fromhex(text.decode())
        chain, image, uid = (hmac.digest(key, f"medmoe audit {use}".encode(), "sha256") for use in cls.__slots__)
        return cls(chain=chain, image=image, uid=uid)

    def image_digest(self, file: bytes) -> str:
        """Return the HMAC-SHA-256 of a file's bytes in hexadecimal."""
        return hmac.new(self.image, file, "sha256").hexdigest()

    def uid_digest(self, uid: str) -> str:
        """Return the HMAC-SHA-256 of a DICOM UID in hexadecimal."""
        return hmac.new(self.uid, uid.encode(), "sha256").hexdigest()
