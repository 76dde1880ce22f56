"""Measure the processor time of a refusal: our service, full, and clients that it has to send away.

    python -m tests.benchmarks.refusal_cost [--refusals 2000] [--repeats 5] [--against DIR] [--json FILE]

One request holds the only slot until the end; all others are questions with an image of 12 kB, and get 429. `a
connection each` is how strangers come, `kept connections` how one client's pool does. `client` is what asks, for
comparison. With `--against`, the same goes to the service of another checkout (a git worktree), turn about; ratios are
medians over the repeats with 95 % bootstrap intervals, under 1 where this checkout takes less.
"""

import argparse
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.benchmarks.request_cost import Times, report
from tests.benchmarks.support.checkouts import this_and_other
from tests.benchmarks.support.exchange import request_bytes
from tests.benchmarks.support.load import TIMEOUT, bodies
from tests.benchmarks.support.machine import machine
from tests.support.service.server_process import ServerProcess

_WARM_UP = 200
_LONG = 10**7
_FULL = {
    "MEDMOE_ENGINE": "fake",
    "MEDMOE_MAX_CONCURRENT": "1",
    "MEDMOE_MAX_QUEUED": "0",
    "MEDMOE_TIMEOUT_MS": str(_LONG),
}
_NEVER = ("-m", "tests.support.service.mortal_engine", "--delay", str(_LONG))
_WAYS = {"a connection each": False, "kept connections": True}
"""By name: whether connections are kept."""


@contextmanager
def full(server: ServerProcess, body: bytes) -> Iterator[None]:
    """Inside, the one slot is taken."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=TIMEOUT) as holder:
        holder.sendall(request_bytes(body))
        deadline = time.monotonic() + TIMEOUT
        while "medmoe_requests_in_flight 1.0" not in httpx.get(f"{server.url}/metrics").text:
            if time.monotonic() > deadline:
                raise TimeoutError("the service does not become full")
            time.sleep(0.02)
        yield


def be_refused(url: str, body: bytes, *, number: int, clients: int, keep: bool) -> None:
    """`number` times, by `clients` at once. Raises RuntimeError for any other answer."""
    address = urlsplit(url)
    asked = request_bytes(body, keep=keep)

    def one(count: int) -> None:
        connection: socket.socket | None = None
        for _ in range(count):
            if connection is None:
                connection = socket.create_connection((address.hostname, address.port), timeout=TIMEOUT)
            connection.sendall(asked)
            answer = _answer(connection)
            if not answer.startswith(b"HTTP/1.1 429 ") or b'"overloaded"' not in answer:
                raise RuntimeError(f"not refused: {answer[:300]!r}")
            if not keep:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, [number // clients] * clients))


def _answer(connection: socket.socket) -> bytes:
    """To the end that its Content-Length tells."""
    answer = b""
    while True:
        head, blank, body = answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        if blank and len(body) >= int(length):
            return answer
        if not (piece := connection.recv(2**16)):
            raise RuntimeError(f"lost after {answer[:300]!r}")
        answer += piece


def spent(server: ServerProcess) -> dict[str, float]:
    """Seconds so far."""
    found = {"service": psutil.Process(server.process.pid).cpu_times(), "client": psutil.Process().cpu_times()}
    return {name: times.user + times.system for name, times in found.items()}


def measure(options: argparse.Namespace) -> Times:
    (body, *_) = bodies(max_tokens=16)
    times: Times = defaultdict(list)
    for repeat in range(options.repeats):
        print(f"repeat {repeat}", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            servers = this_and_other(stack, options.against, _NEVER, _FULL)
            for server in servers.values():
                stack.enter_context(full(server, body))
            for way, keep in _WAYS.items():
                for who in sorted(servers, reverse=bool(repeat % 2)):
                    url = servers[who].url
                    be_refused(url, body, number=_WARM_UP, clients=options.clients, keep=keep)
                    before = spent(servers[who])
                    be_refused(url, body, number=options.refusals, clients=options.clients, keep=keep)
                    for process, seconds in spent(servers[who]).items():
                        times[way, who, process].append((seconds - before[process]) / options.refusals)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--refusals", type=int, default=2000, help="of each kind, in each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the times there too")
    options = parser.parse_args()
    here = machine()
    report(measure(options), here=here, into=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
