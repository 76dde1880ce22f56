"""Declare the deployment settings of files and batches."""

from pathlib import Path

from pydantic import Field

from medmoe.server.configuration.strict_environment import StrictSettings

FORM_BYTES = 64 * 1024
"""Bytes of an upload's form beside the file."""


class BatchSettings(StrictSettings):
    """Where files and batches are kept, how long, and how large they may be."""

    batch_dir: Path | None = None
    """Directory of files and batches (`/v1/files`, `/v1/batches`), which hold images and answers: put it on an
    encrypted disk. One process uses it. None: these routes answer `batches_disabled`."""
    batch_retention_days: float = Field(default=30.0, gt=0, le=3650)
    """Time after which files, and batches that have ended, are deleted; callers can delete files sooner."""
    batch_max_lines: int = Field(default=50_000, ge=1, le=1_000_000)
    """Most lines of a batch; a running one holds some 300 bytes of memory for each."""
    batch_max_bytes: int = Field(default=200 * 2**20, ge=1024)
    """Largest file that is taken, which an upload holds in memory: with 64 KiB for its form it must fit into
    `body_memory_mib`, and alone into `batch_max_stored_bytes`. A line must also fit into `max_body_bytes`."""
    batch_max_stored_bytes: int = Field(default=4 * 2**30, ge=1024)
    """Most bytes of all files of one API key's name or token's subject, answers included. At these, and at 10,000 files
    or batches, no further one is taken."""
    batch_concurrency: int = Field(default=4, ge=1, le=64)
    """Lines that are answered at once while no other request is inside. More uses the engine better, and delays the
    next request by a longer engine step."""
