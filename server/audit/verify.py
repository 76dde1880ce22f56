"""Check an audit trail: every line, its place in the chain, and with the key who wrote it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from medmoe.server.audit.chain import GENESIS, MAX_LINE_BYTES, AuditRecord, Position, decode
from medmoe.server.audit.errors import AuditError
from medmoe.server.audit.keys import AuditKeys
from medmoe.server.audit.segments import Torn, segments, torn

_LOOKS = 10
_LOOK_SECONDS = 0.05
"""Time between two looks at a line that a running service may be writing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrailSummary:
    """Summary of a trail in which every record was right."""

    records: int
    segments: int
    starts: int
    """Starts of the service."""
    interrupted: int
    """Incomplete lines that a later record names: writes that a crash or a full disk broke off."""
    head: str
    """Hash of the last record."""
    last_time: str


def read_trail(directory: Path, *, after: str = GENESIS, keys: AuditKeys | None = None) -> Iterator[AuditRecord]:
    """Yield the records in order, each checked. `after` is the hash of the record before the first.

    Raises AuditError at the first line that is changed, missing, repeated or in another place, OSError.
    """
    found = segments(directory)
    if not found:
        raise AuditError(f"{directory} holds no audit trail")
    position, last = Position(head=after), found[max(found)]
    numbered = after == GENESIS
    incomplete: list[Torn] = []
    expected = 1 if numbered else min(found)
    name, line = "", 0
    for number, path in found.items():
        if number != expected:
            raise AuditError(f"segment {expected} is missing")
        expected += 1
        name, line = path.name, 0
        with path.open("rb") as file:
            while text := _next_line(file, may_be_written=path is last):
                line += 1
                if not text.endswith(b"\n"):
                    rest = text + file.read()
                    incomplete.append(torn(name, rest))
                    break
                try:
                    record = decode(text[:-1])
                except ValueError as error:
                    raise AuditError.at(name, line, str(error)) from error
                if record.prev != position.head or (numbered and record.n != position.n):
                    raise AuditError.at(name, line, "it does not follow the record before it")
                if record.fields.get("torn", []) != incomplete:
                    raise AuditError.at(name, line, "the incomplete line before it is not the one that it names")
                if keys is not None and not record.is_signed_with(keys.chain):
                    raise AuditError.at(name, line, "it was not written with this key")
                incomplete = []
                position, numbered = record.after, True
                yield record
    if incomplete:
        raise AuditError.at(name, line, "it is incomplete: a crash (the next start marks it), or it was cut")


def _next_line(file: BinaryIO, *, may_be_written: bool) -> bytes:
    """Return the next line; for the rest of one that is being written wait a moment."""
    text = file.readline(MAX_LINE_BYTES)
    looks = _LOOKS if may_be_written else 0
    while text and not text.endswith(b"\n") and looks:
        time.sleep(_LOOK_SECONDS)
        text += file.readline(MAX_LINE_BYTES - len(text))
        looks -= 1
    return text


def verify_trail(
    directory: Path, *, after: str = GENESIS, keys: AuditKeys | None = None, head: str | None = None
) -> TrailSummary:
    """Check a whole trail; `head` is a hash that an earlier check printed and that must be in it.

    Raises what `read_trail` raises, and AuditError when no record has the hash `head`.
    """
    records = starts = interrupted = 0
    last: AuditRecord | None = None
    seen = head in (None, after)
    for record in read_trail(directory, after=after, keys=keys):
        last = record
        records += 1
        starts += record.fields.get("event") == "start"
        interrupted += len(record.fields.get("torn", ()))
        seen = seen or record.hash == head
    if last is None:
        raise AuditError(f"{directory} holds no record")
    if not seen:
        raise AuditError(
            f"no record has the hash {head}: records after line {records} of the trail are missing, or it is another"
        )
    return TrailSummary(
        records=records,
        segments=len(segments(directory)),
        starts=starts,
        interrupted=interrupted,
        head=last.hash,
        last_time=str(last.fields.get("time")),
    )
