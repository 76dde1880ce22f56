"""python -m medmoe.server.imaging.sandbox.worker: a process that makes children which decode pictures.

It imports Pillow, numpy and pydicom once and then forks: a child is there in milliseconds, wherever one has died. It
never sees a picture itself. Children share nothing with the service but their socket: no environment, no output, no
file to write, and limits on memory and time that the kernel holds. When the service ends, so do all of them.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from medmoe.model.errors import ImageError
from medmoe.server.errors import ImageTooCostly, RequestError
from medmoe.server.imaging.config import DecoderConfig
from medmoe.server.imaging.formats.reader import ImageReader
from medmoe.server.imaging.sandbox.protocol import LENGTHS, Done, Order, Refused, pack, receive_exactly

_MAX_COMMAND = 64 * 1024
_PR_SET_PDEATHSIG = 1
_AHEAD = (
    "medmoe.server.imaging.formats.dicom_values",
    "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "PIL.TiffImagePlugin", "PIL.WebPImagePlugin", "PIL.BmpImagePlugin",
    "pydicom.pixels.decoders", "gdcm", "openjpeg", "rle",
)  # fmt: skip
"""Imported before the first child is made, so that none does it."""


def main() -> NoReturn:
    """Obey the service at the other end of standard input until it goes."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        # Whoever stops the service drains it first, and these signals reach whole groups.
        signal.signal(ignored, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    _silence()
    for module in _AHEAD:
        importlib.import_module(module)
    # What is here now stays in the pages that all children share.
    gc.freeze()
    children: set[int] = set()
    with contextlib.suppress(ConnectionError):
        while (received := _command(control)) is not None:
            command, descriptors = received
            if command["do"] == "fork":
                pid = _fork(control, DecoderConfig.model_validate_json(command["config"]), *descriptors)
                children.add(pid)
                answer = {"pid": pid}
            else:
                # A number from before a restart may by now be anybody's.
                known = command["pid"] in children
                children.discard(command["pid"])
                answer = {"signal": _end(command["pid"]) if known else 0}
            control.sendall(json.dumps(answer).encode() + b"\n")
    os._exit(0)


def _silence() -> None:
    """Libraries print what they find in files; nobody may read that."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _command(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    text, descriptors = b"", []
    while not text.endswith(b"\n"):
        part, more, _, _ = socket.recv_fds(control, _MAX_COMMAND, 1)
        if not part:
            return None
        text += part
        descriptors += more
    return json.loads(text), descriptors


def _end(pid: int) -> int:
    """Kill a child, if it still lives, and say which signal ended it: 0 for none."""
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _fork(control: socket.socket, config: DecoderConfig, descriptor: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    try:
        os.dup2(1, sys.stderr.fileno())
        control.close()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            _confine(config)
            _serve(socket.socket(fileno=descriptor), config)
    finally:
        os._exit(1)


def _confine(config: DecoderConfig) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = held + config.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _serve(connection: socket.socket, config: DecoderConfig) -> None:
    reader = ImageReader(config)
    costly = False
    with contextlib.suppress(EOFError, ConnectionError):
        while not costly:
            head_size, size = LENGTHS.unpack(receive_exactly(connection, LENGTHS.size))
            order = Order.model_validate_json(bytes(receive_exactly(connection, head_size)))
            _grant(config)
            pixels = b""
            answer: Done | Refused
            try:
                sent = bytes(receive_exactly(connection, size))
                decoded = reader.read(sent.decode() if order.text else sent, order.fields, view=order.view)
                pixels = decoded.image.tobytes()
                answer = Done(
                    sha256=decoded.sha256,
                    width=decoded.width,
                    height=decoded.height,
                    rendering=decoded.rendering,
                    windowing=decoded.windowing,
                    size=decoded.image.size,
                )
            except MemoryError:
                answer = Refused.of(ImageTooCostly("decoding the picture takes more memory than the service grants"))
            except (RequestError, ImageError) as error:
                answer = Refused.of(error)
            # What a picture that took all memory has left behind, the next one should not have to live with.
            costly = isinstance(answer, Refused) and answer.error == ImageTooCostly.__name__
            # Before answering: a child that has answered is given the next picture.
            _take_back()
            connection.sendall(pack(answer, size=len(pixels)))
            connection.sendall(pixels)


def _grant(config: DecoderConfig) -> None:
    """Time for one picture; the kernel ends a process that takes more, in native code too."""
    signal.setitimer(signal.ITIMER_REAL, config.wall_seconds)
    signal.setitimer(signal.ITIMER_PROF, config.cpu_seconds)


def _take_back() -> None:
    for clock in (signal.ITIMER_REAL, signal.ITIMER_PROF):
        signal.setitimer(clock, 0)


if __name__ == "__main__":
    main()
