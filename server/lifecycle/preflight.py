"""Check port, checkpoint and memory before the engine starts: each misfit is one line that names the setting."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import psutil
from safetensors import SafetensorError, safe_open

from medmoe.model.config import ADAPTER_WEIGHTS_FILE, CONFIG_FILE, MedMoEConfig
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.terminal_safe import listed
from medmoe.model.files.weight_files import WeightFiles
from medmoe.model.signing.signature import verify_directory
from medmoe.server.engine.deployment.vllm_environment import CPU_KV_CACHE_GIB
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings

log = logging.getLogger("medmoe.start")

_GIB = 2**30
_BACKLOG = 2048
_MOST_NEIGHBOURS = 3
_MOST_ENTRIES = 500
"""Directory entries that are looked at for neighbours."""
_CONTAINER = Path("/sys/fs/cgroup")
_RECLAIMABLE = "inactive_file"


@contextlib.contextmanager
def listening_sockets(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Open a TCP socket at each address of `host`, one for loopback. Raises ConfigError when that is not possible."""
    with contextlib.ExitStack() as stack:
        try:
            addresses = dict.fromkeys(
                (family, address)
                for family, _, _, _, address in socket.getaddrinfo(
                    host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            )
        except OSError as error:
            raise ConfigError(f"MEDMOE_HOST={host} has no address: {error.strerror or error}") from error
        try:
            # "::" alone takes IPv4 too; beside a socket of IPv4 the port would be taken twice.
            is_dual = all(family == socket.AF_INET6 for family, _ in addresses)
            sockets = [stack.enter_context(_listening(family, address, is_dual)) for family, address in addresses]
        except OSError as error:
            reason = f"{os.strerror(error.errno) if error.errno else error}".lower()
            raise ConfigError(
                f"MEDMOE_PORT={port}: cannot listen on {host}: {reason}; end the process that listens there, or set"
                " another MEDMOE_PORT"
            ) from error
        yield sockets


def _listening(family: int, address: tuple[object, ...], is_dual: bool) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not is_dual)
        opened.bind(address)
        # With SO_REUSEADDR two sockets may be bound to one port as long as neither of them listens.
        opened.listen(_BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def check_signature(settings: Settings) -> None:
    """Verify the signature of the checkpoint where the deployment has a key. Raises ConfigError, CheckpointError."""
    if settings.model_public_key is None:
        return
    try:
        files = verify_directory(settings.model, settings.model_public_key)
    except CheckpointError as error:
        raise CheckpointError(f"MEDMOE_MODEL: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"MEDMOE_MODEL_PUBLIC_KEY: {error}") from error
    log.info("checkpoint signature verified", extra={"fields": {"files": files}})


def check_model_directory(model: Path) -> None:
    """Raise ConfigError when `model` holds no config.json or a malformed one; name checkpoints nearby."""
    try:
        MedMoEConfig.from_directory(model)
    except ConfigError as error:
        if (model / CONFIG_FILE).exists():
            raise
        nearby = _nearby_checkpoints(model)
        proposal = f"; checkpoints nearby: {listed(nearby, shown=_MOST_NEIGHBOURS)}" if nearby else ""
        bundled = "without it the bundled checkpoint is served"
        raise ConfigError(f"MEDMOE_MODEL: {error}{proposal}; {bundled}") from error


def _nearby_checkpoints(model: Path) -> list[str]:
    """Return checkpoint directories inside `model`, else beside it, the most similar name first."""
    for folder in (model, model.parent):
        try:
            entries = list(islice(folder.iterdir(), _MOST_ENTRIES))
        except OSError:
            continue
        found = sorted(str(entry) for entry in entries if _is_checkpoint(entry))
        if found:
            similar = get_close_matches(str(model), found, n=_MOST_NEIGHBOURS, cutoff=0)
            return [*similar, *(path for path in found if path not in similar)]
    return []


def _is_checkpoint(directory: Path) -> bool:
    try:
        MedMoEConfig.from_directory(directory)
    except (ConfigError, CheckpointError, OSError):
        return False
    return True


def check_weights(model: Path) -> None:
    """Compare each weights file's header with its size. Raises CheckpointError for missing or damaged weights."""
    try:
        weights = WeightFiles.of(model)
    except CheckpointError as error:
        raise CheckpointError(f"MEDMOE_MODEL: {error}") from error
    for path in (*weights.files, model / ADAPTER_WEIGHTS_FILE):
        if not path.exists():
            continue
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"MEDMOE_MODEL: the weights are damaged or incomplete: {path} cannot be read as safetensors"
                f" ({error}); copy or download the file again"
            ) from error


def check_memory(settings: Settings, *, free: int | None = None) -> None:
    """Compare a CPU engine's weights and key-value caches with the `free` bytes of memory. Raises DeploymentError."""
    free = free_memory() if free is None else free
    kv_cache = settings.kv_cache_gib or CPU_KV_CACHE_GIB
    caches = kv_cache * settings.tensor_parallel_size * _GIB
    weights = WeightFiles.of(settings.model).nbytes
    if caches + weights > free:
        ranks = f" for each of {settings.tensor_parallel_size} ranks" if settings.tensor_parallel_size > 1 else ""
        raise DeploymentError(
            f"MEDMOE_KV_CACHE_GIB={kv_cache}{ranks} and {weights / _GIB:.1f} GiB of weights do not fit in"
            f" {free / _GIB:.1f} GiB of free memory; lower MEDMOE_KV_CACHE_GIB or free memory"
        )


def free_memory() -> int:
    """Return the bytes of memory that can still be taken, within the container's limit where there is one."""
    free: int = psutil.virtual_memory().available
    try:
        limit, used = (int((_CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        # No control group, or the word "max".
        return free
    return max(0, min(free, limit - used + int(counts.get(_RECLAIMABLE, 0))))
