"""Fork workers that decode images; run as python -m medmoe.server.imaging.sandbox.worker.

The process imports Pillow, numpy and pydicom once and then forks, so a new worker is there in milliseconds. It never
sees an image itself. Workers share nothing with the service but their socket: no environment, no output, no file to
write. The kernel holds their limits on memory and time. All of them end with the service.
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
from medmoe.server.imaging.decoder_config import DecoderConfig, Message
from medmoe.server.imaging.formats.archive import unpack
from medmoe.server.imaging.formats.dicom.slice_geometry import survey_file, survey_metadata
from medmoe.server.imaging.formats.reader import ImageReader
from medmoe.server.imaging.formats.sniff import from_text
from medmoe.server.imaging.reports.document import identify, make_report
from medmoe.server.imaging.sandbox.protocol import (
    LENGTHS,
    AnyRequest,
    DecodeRequest,
    Document,
    IdentifyRequest,
    Refusal,
    ReportRequest,
    SurveyRequest,
    Unpacked,
    UnpackRequest,
    WorkerRequest,
    pack,
    receive_exactly,
)

_MAX_COMMAND = 64 * 1024
_PR_SET_PDEATHSIG = 1
_PRELOADED = (
    "medmoe.server.imaging.formats.dicom.rendering",
    "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "PIL.TiffImagePlugin", "PIL.WebPImagePlugin", "PIL.BmpImagePlugin",
    "pydicom.pixels.decoders", "gdcm", "jpeg_ls", "openjpeg", "rle",
)  # fmt: skip
"""Modules that are imported before the first fork, so that no worker imports them."""


def main() -> NoReturn:
    """Obey the service at the other end of standard input until it ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        # These signals reach whole process groups; the service drains first and then ends its workers.
        signal.signal(ignored, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    _silence()
    for module in _PRELOADED:
        importlib.import_module(module)
    # Objects that exist now stay in the memory pages that all workers share.
    gc.freeze()
    workers: set[int] = set()
    with contextlib.suppress(ConnectionError):
        while (received := _command(control)) is not None:
            command, descriptors = received
            if command["do"] == "spawn":
                pid = _spawn(control, DecoderConfig.model_validate_json(command["config"]), *descriptors)
                if pid is not None:
                    workers.add(pid)
                answer = {"pid": pid}
            else:
                # A process id from before a restart may belong to another process by now.
                known = command["pid"] in workers
                workers.discard(command["pid"])
                answer = {"signal": _stop(command["pid"]) if known else None}
            control.sendall(json.dumps(answer).encode() + b"\n")
    os._exit(0)


def _silence() -> None:
    """Discard all output: image libraries print what they find in files."""
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


def _stop(pid: int) -> int:
    """Kill a worker if it still lives; return the number of the signal that ended it, 0 for none."""
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _spawn(control: socket.socket, config: DecoderConfig, descriptor: int) -> int | None:
    """Fork a worker that serves `descriptor`; return its process id, None when the system has no process left."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(descriptor)
        return None
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
            request = AnyRequest.validate_json(bytes(receive_exactly(connection, head_size)))
            _set_timers(wall_seconds=config.wall_seconds, cpu_seconds=config.cpu_seconds)
            payload = b""
            answer: Message
            try:
                sent = bytes(receive_exactly(connection, size))
                answer, payload = _answer(reader, request, sent.decode() if request.text else sent)
            except MemoryError:
                answer = Refusal.of(ImageTooCostly())
            except (RequestError, ImageError) as error:
                answer = Refusal.of(error)
            costly = isinstance(answer, Refusal) and answer.is_costly
            # Before answering: a worker that has answered is given the next image.
            _set_timers(wall_seconds=0, cpu_seconds=0)
            connection.sendall(pack(answer, size=len(payload)))
            connection.sendall(payload)


def _answer(reader: ImageReader, request: WorkerRequest, sent: str | bytes) -> tuple[Message, bytes]:
    with reader.typed_errors():
        match request:
            case DecodeRequest():
                image = reader.read(sent, request.fields, view=request.view)
                return image, image.pixels
            case IdentifyRequest():
                return Document(), identify(sent)
            case ReportRequest():
                return Document(), make_report(sent, request.content, request.format)
            case SurveyRequest():
                survey = survey_metadata if request.metadata else survey_file
                return Document(), survey(_bytes(sent), max_slices=request.max_slices).model_dump_json().encode()
            case UnpackRequest():
                files = unpack(_bytes(sent), max_files=request.max_files, max_bytes=request.max_bytes)
                return Unpacked(sizes=tuple(map(len, files))), b"".join(files)


def _bytes(sent: str | bytes) -> bytes:
    return from_text(sent) if isinstance(sent, str) else sent


def _set_timers(*, wall_seconds: float, cpu_seconds: float) -> None:
    """Have the kernel end the process after these times, in native code too; 0 for never."""
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


if __name__ == "__main__":
    main()
