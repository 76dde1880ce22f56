"""Find the files of an audit trail, audit-000001.jsonl and so on, and where the trail ends."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmoe.server.audit.chain import Position, decode
from medmoe.server.audit.errors import AuditError

_NAME = re.compile(r"audit-(\d{6,9})\.jsonl")

Torn = Mapping[str, Any]
"""Names the `segment` with an incomplete last line, its number of `bytes` and their `sha256`."""


def segment_path(directory: Path, number: int) -> Path:
    """Return the path of segment `number`, from 1 on."""
    return directory / f"audit-{number:06d}.jsonl"


def segments(directory: Path) -> dict[int, Path]:
    """Return the segments of a trail by number, in order. Raises OSError."""
    found = {int(match[1]): path for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def torn(segment: str, rest: bytes) -> Torn:
    """Return the mark of an incomplete last line."""
    return {"segment": segment, "bytes": len(rest), "sha256": hashlib.sha256(rest).hexdigest()}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrailEnd:
    """Where a trail ends, and which incomplete lines no record names yet."""

    position: Position
    torn: tuple[Torn, ...]
    next_segment: int
    """Number of the segment to write; an empty last one is used."""


def find_end(directory: Path, *, key: bytes) -> TrailEnd:
    """Read the last record of a trail. Raises AuditError when it is damaged, missing or of another key, OSError."""
    found = segments(directory)
    if not found:
        return TrailEnd(position=Position(), torn=(), next_segment=1)
    last = max(found)
    incomplete: list[Torn] = []
    position = Position()
    for path in reversed(found.values()):
        *lines, rest = path.read_bytes().rsplit(b"\n", 2)
        if rest:
            incomplete.append(torn(path.name, rest))
        if lines:
            try:
                record = decode(lines[-1])
            except ValueError as error:
                raise AuditError(f"{path.name}, last line: {error}") from error
            if not record.is_signed_with(key):
                raise AuditError(f"{path.name}, last line: it was not written with this key")
            position = record.after
            break
    else:
        if (first := min(found)) > 1:
            raise AuditError(f"no file holds a record, and segment {first - 1} is missing, where the last one is")
    return TrailEnd(
        position=position,
        torn=tuple(reversed(incomplete)),
        next_segment=last if not found[last].stat().st_size else last + 1,
    )
