"""Run a fake engine in a process that can be killed, and a server over it.

    python -m tests.support.service.mortal_engine [--delay SECONDS] [--poison WORD]

starts the real server, settings as always in MEDMOE_*, with this engine in the place of the one that they name.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from itertools import count

import psutil

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import EngineDeadError, EngineError, GenerationChunk, GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.engine.process_tree import ProcessTree
from tests.support.service.served_engine import serve_over

MARK = "EngineCore of a fake"
"""Part of the command line of the engine's process, to find it by."""
_BODY = f"""# {MARK}
import signal, sys

def spin(*_):
    while True:
        pass

signal.signal(signal.SIGUSR1, spin)
for line in sys.stdin:
    print(line, end="", flush=True)
"""
"""Repeats each line, until it is sent SIGUSR1 and loops for ever."""


class MortalEngine(FakeEngine):
    """Generate like the fake engine; stop when the process hangs, raise EngineDeadError when it dies."""

    def __init__(self, config: MedMoEConfig, prompt: Prompt, *, delay: float = 0.0, poison: str | None = None) -> None:
        """`delay` seconds between tokens but in the first answer, the warm-up; `poison` in a question kills."""
        super().__init__(config, prompt)
        self._later_delay = delay
        self._poison = poison
        self._process: asyncio.subprocess.Process | None = None
        self._death: asyncio.Task[int] | None = None
        self._tree: ProcessTree | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._numbers = count()
        self.fail_start = False
        self.running = 0
        self.closed = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        if self.fail_start:
            raise EngineError("the fake was told not to start")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _BODY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read())
        self._death = asyncio.create_task(self._process.wait())
        self._tree = ProcessTree([self._process.pid])

    async def check_health(self) -> None:
        await super().check_health()
        if self._tree is None or not self._tree.is_whole():
            raise EngineDeadError("the process has ended")

    async def ping(self) -> None:
        if self._process is None or self._process.stdin is None:
            raise EngineDeadError("the process has not been started")
        number = next(self._numbers)
        self._pings[number] = asyncio.get_running_loop().create_future()
        try:
            self._process.stdin.write(f"{number}\n".encode())
            await self._pings[number]
        finally:
            del self._pings[number]

    async def kill(self) -> None:
        assert self._tree is not None
        self._tree.kill()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            ping = self._pings.get(int(line))
            if ping is not None and not ping.done():
                ping.set_result(None)

    async def close(self) -> None:
        self.closed = True
        if self._process is not None and self._death is not None and self._tree is not None:
            if not self._death.done():
                # Its end may be known to the kernel and not yet to us.
                with suppress(ProcessLookupError):
                    self._process.kill()
            await self._death
            self._tree.clear()
            if self._reader is not None:
                await self._reader

    def metrics(self) -> bytes:
        return f"fake:num_requests_running {self.running}\n".encode()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        self.running += 1
        chunks = aiter(super().generate(request))
        try:
            if self._poison is not None and self._poison in self._prompt.decode(list(request.prompt_ids)):
                # Another step of the same classification may have been faster.
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(self.pid).kill()
                assert self._death is not None
                # Whoever kills an engine does not get an answer out of it first.
                await asyncio.wait((self._death,))
            while True:
                coming = asyncio.ensure_future(self._next(chunks))
                try:
                    assert self._death is not None
                    await asyncio.wait((coming, self._death), return_when=asyncio.FIRST_COMPLETED)
                    if self._death.done():
                        raise EngineDeadError("the process has ended")
                    chunk = coming.result()
                finally:
                    coming.cancel()
                    # Also what it may have raised itself, of the same death.
                    await asyncio.gather(coming, return_exceptions=True)
                if chunk is None:
                    break
                yield chunk
            if self._later_delay:
                self.delay = self._later_delay
        finally:
            self.running -= 1
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def _next(self, chunks: AsyncIterator[GenerationChunk]) -> GenerationChunk | None:
        # No token without the process.
        await self.ping()
        return await anext(chunks, None)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--poison")
    options = parser.parse_args()
    return serve_over(lambda config, prompt: MortalEngine(config, prompt, delay=options.delay, poison=options.poison))


if __name__ == "__main__":
    sys.exit(main())
