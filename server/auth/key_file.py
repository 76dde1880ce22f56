"""Read and write the lines of the key file.

A line is `name sha256-of-the-key`, and optionally the limits of the key:
`name sha256-of-the-key requests_per_minute=60 scopes=ask,stats`. Keys are 256 random bits, so that a fast hash is
enough: a slow one would only let a flood of guesses cost more.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medmoe.model.errors import ConfigError
from medmoe.model.files.bounded_read import read_secret
from medmoe.server.auth.scopes import ALL_SCOPES, Scope, known_scopes

_NAME_AND_HASH = re.compile(r"([A-Za-z0-9._-]{1,64})[ \t]+([0-9a-f]{64})")
_LINE = re.compile(_NAME_AND_HASH.pattern + r"((?:[ \t]+[a-z_]+=[a-z0-9,]+)*)")
_LIMIT = re.compile("[1-9][0-9]{0,8}")
_PREFIX = "mm-"
_MAX_FILE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyEntry:
    """A line of the key file."""

    name: str
    key_hash: bytes
    """SHA-256 of the key."""
    requests_per_minute: int | None = None
    """None: the deployment's."""
    scopes: frozenset[Scope] = ALL_SCOPES


def read_key_file(path: Path) -> bytes:
    """Return the file's content. Raises ConfigError when it cannot be read."""
    return read_secret(path, name="MEDMOE_API_KEYS: the key file", limit=_MAX_FILE_BYTES)


def parse_key_file(content: bytes) -> tuple[KeyEntry, ...]:
    """Return the entries; blank lines and lines that begin with # are skipped.

    Raises ConfigError when a line is something else, a key comes twice, lines of one name have different limits, or
    there is no key.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeError as error:
        raise ConfigError("MEDMOE_API_KEYS: the key file is not UTF-8 text") from error
    found: dict[bytes, KeyEntry] = {}
    limits: dict[str, int | None] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            entry = _entry(line.strip())
        except ValueError as error:
            # The message leaves the line out: it may be a key in the place of its hash.
            raise ConfigError(f"MEDMOE_API_KEYS: line {number} of the key file {error}") from error
        if entry.key_hash in found:
            raise ConfigError(f"MEDMOE_API_KEYS: line {number} of the key file repeats a key")
        if limits.setdefault(entry.name, entry.requests_per_minute) != entry.requests_per_minute:
            raise ConfigError(
                f"MEDMOE_API_KEYS: line {number} of the key file has another requests_per_minute than its name before"
            )
        found[entry.key_hash] = entry
    if not found:
        raise ConfigError("MEDMOE_API_KEYS: the key file holds no key; medmoe serve --new-key NAME makes one")
    return tuple(found.values())


def new_key(name: str) -> tuple[str, str]:
    """Make a key and its line for the key file. Raises ConfigError for a name that the file cannot hold."""
    key = _PREFIX + secrets.token_urlsafe(32)
    line = f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
    if _NAME_AND_HASH.fullmatch(line) is None:
        raise ConfigError("a name is 1 to 64 letters, digits, dots, hyphens and underscores")
    return key, line


def _entry(line: str) -> KeyEntry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("is not a name and the SHA-256 of a key; medmoe serve --new-key NAME makes such a line")
    name, key_hash, options = match.groups()
    given = [option.partition("=")[::2] for option in options.split()]
    if len(dict(given)) != len(given) or not {option for option, _ in given} <= {"requests_per_minute", "scopes"}:
        raise ValueError("has options other than one requests_per_minute and one scopes")
    chosen = dict(given)
    limit = chosen.get("requests_per_minute")
    if limit is not None and not _LIMIT.fullmatch(limit):
        raise ValueError("has a requests_per_minute that is no number from 1")
    return KeyEntry(
        name=name,
        key_hash=bytes.fromhex(key_hash),
        requests_per_minute=None if limit is None else int(limit),
        scopes=_scopes(chosen["scopes"].split(",")) if "scopes" in chosen else ALL_SCOPES,
    )


def _scopes(names: Iterable[str]) -> frozenset[Scope]:
    given = list(names)
    scopes = known_scopes(given)
    if len(scopes) != len(given):
        raise ValueError(f"has scopes that are not among {', '.join(sorted(ALL_SCOPES))}, with commas between them")
    return scopes
