"""Define how long and how much one connection may keep the service busy."""

import resource
from dataclasses import dataclass

_OWN = 128
"""File descriptors for what is no connection: engine, decoders, batches, sources."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionLimits:
    """Limits of one connection, and of all together. Times in seconds, sizes in bytes."""

    max_connections: int = 1024
    """Open connections; for one more the longest idle connection is closed."""
    head_seconds: float = 15.0
    """Time for a TLS handshake, for the head of a request, or for the rest of a refused body."""
    stall_seconds: float = 20.0
    """Time in which a client must read `stall_bytes` of a response, or all that is left of it."""
    stall_bytes: int = 16 * 1024
    unsent_bytes: int = 256 * 2**20
    """Response bytes that wait for slow readers, in all connections; above it the one that waits longest is broken."""
    linger_seconds: float = 30.0
    """Time in which the rest of a refused body is read and dropped, so that its sender can read the refusal."""
    linger_bytes: int = 256 * 2**20
    """Bytes that are dropped at most."""

    def within_descriptors(self) -> "ConnectionLimits":
        """Return the limits with as many connections as leave the process a quarter of its file descriptors, and
        `_OWN` where it has them: without a descriptor no connection is taken in an idle one's place.
        """
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self
        kept = max(soft // 4, min(soft // 2, _OWN))
        return ConnectionLimits(max_connections=max(1, min(self.max_connections, soft - kept)))
