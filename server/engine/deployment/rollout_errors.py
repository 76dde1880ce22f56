"""Define why a change of the checkpoint is refused; medmoe.server.errors draws the whole tree."""

from medmoe.server.errors import RequestError, ServerError

_GIB = 2**30


class RolloutDisabled(ServerError):
    """The deployment names no directory of checkpoints."""

    default_message = "this service changes no checkpoint; MEDMOE_CHECKPOINTS_DIR names the directory of those allowed"


class CheckpointNotFound(RequestError):
    """The directory of checkpoints has no such checkpoint, or what has this name lies elsewhere."""

    default_message = (
        "MEDMOE_CHECKPOINTS_DIR holds no checkpoint directory of this name; GET /admin/checkpoint lists all"
    )


class InsufficientMemory(ServerError):
    """A second engine does not fit beside the first."""

    @classmethod
    def on_host(cls, *, needed: int, weights: int, free: int) -> "InsufficientMemory":
        """Return the error for an engine that needs `needed` bytes, `weights` of them for weights."""
        return cls(
            f"a second engine needs {needed / _GIB:.1f} GiB, {weights / _GIB:.1f} of them for weights, and"
            f" {free / _GIB:.1f} GiB are free; free memory or lower MEDMOE_KV_CACHE_GIB"
        )

    @classmethod
    def on_gpu(cls, share: float) -> "InsufficientMemory":
        """Return the error for engines that take `share` of the GPU's memory each."""
        return cls(
            f"two engines take {share:.2f} of the GPU's memory each (MEDMOE_GPU_MEMORY_UTILIZATION); start the service"
            " with less than half"
        )


class StandbyConflict(ServerError):
    """The standby is not in the state that the operation needs."""
