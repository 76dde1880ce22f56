"""Declare the deployment settings of the audit trail, of signed checkpoints and of those that may be loaded."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from medmoe.server.configuration.strict_environment import StrictSettings


class IntegritySettings(StrictSettings):
    """Where and how requests are audited, and whose checkpoints are served."""

    model_public_key: Path | None = None
    """Ed25519 public key in PEM. A start verifies the checkpoint's signature (`medmoe sign`) and the hash of every file
    before anything is parsed, a second or more for a gigabyte. None: unsigned checkpoints are served."""
    checkpoints_dir: Path | None = None
    """Directory of the checkpoints that `POST /admin/checkpoint` may load beside the active one, by their names in it.
    None: the checkpoint of a running service never changes. Each costs trust: a caller with the scope admin can then
    make the service answer from any of them, and memory: a second engine."""
    audit_dir: Path | None = None
    """Directory of the audit trail: a line for each request about an image, without content, written before the answer
    leaves. Nothing is ever deleted there: some 1,000 bytes a request. One process writes it. None without it."""
    audit_key: Path | None = None
    """File of 64 hexadecimal digits (`openssl rand -hex 32`), needed by `audit_dir`: the key of the digests of images
    and DICOM UIDs, and of the trail's seals. Who has it can tell whether a given image was asked about."""
    audit_on_failure: Literal["refuse", "continue"] = "refuse"
    """What a full or broken disk of `audit_dir` means: refuse answers nothing (503 `audit_unavailable`), continue
    answers without records, which `medmoe_audit_failures_total` and the log count."""
    audit_sync: Literal["second", "always"] = "second"
    """When records reach the disk: within a second, so that a power failure (not a crash) may lose that much, or always
    before the answer, which waits for the disk, a few milliseconds on a good one."""
    audit_segment_mib: int = Field(default=64, ge=1, le=256)
    """Size at which the audit trail goes on in another file; a start reads the last one."""

    @field_validator("checkpoints_dir")
    @classmethod
    def _directory(cls, directory: Path | None) -> Path | None:
        if directory is not None and not directory.is_dir():
            raise ValueError("needs a directory that is there")
        return directory

    @model_validator(mode="after")
    def _trail_has_a_key(self) -> Self:
        if self.audit_dir is not None and self.audit_key is None:
            raise ValueError("MEDMOE_AUDIT_DIR needs MEDMOE_AUDIT_KEY; make one with `openssl rand -hex 32`")
        if self.audit_key is not None and self.audit_dir is None:
            raise ValueError("MEDMOE_AUDIT_KEY needs MEDMOE_AUDIT_DIR: without a directory nothing is recorded")
        return self
