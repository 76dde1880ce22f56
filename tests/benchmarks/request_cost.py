"""Measure the processor time of a request outside the engine, for each route, over an engine that does nothing.

    python -m tests.benchmarks.request_cost [--requests 100] [--repeats 7] [--against DIR] [--only NAME] [--json FILE]
    python -m tests.benchmarks.request_cost --audit second|always [--clients 1]

`service` is the process that answers, `decoders` those that it has started, and `latency` is what a client waits for an
answer. With `--audit` this checkout keeps an audit trail in a temporary directory and `other` is the same without. With
`--against`, the same requests go to the service of another checkout (a git worktree), turn about, so that a busy
machine harms both; ratios are medians over the repeats with 95 % bootstrap intervals, under 1 where this checkout takes
less. Every repeat starts its servers anew: two processes of the same code differ by more than their requests do.
`--model` takes any directory with config.json and
tokenizer.json: weights are not needed to learn what a larger model's prompts and layers cost.
"""

import argparse
import base64
import http.client
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from medmoe.server.settings import Settings
from tests.benchmarks.label_cost import LABELS
from tests.benchmarks.support.bootstrap import median_interval, ratio_interval, shown
from tests.benchmarks.support.checkouts import HERE, served, this_and_other
from tests.benchmarks.support.load import TIMEOUT, print_table
from tests.benchmarks.support.machine import describe, machine
from tests.benchmarks.support.request_file import make_requests
from tests.benchmarks.support.traffic import cpu_seconds
from tests.support.service.server_process import ServerProcess

_WARM_UP = 16
_QUESTION = {"question": "Is there a pleural effusion?", "max_tokens": 16}
_FEW, _MANY = {"labels": LABELS[:2]}, {"labels": LABELS}
_ROUTING = {"include_routing": True}
_ASKED: dict[str, tuple[str, dict[str, Any], bool]] = {
    "vqa": ("/v1/vqa", _QUESTION, False),
    "vqa, multipart": ("/v1/vqa", _QUESTION, True),
    "vqa, stream": ("/v1/vqa", _QUESTION | {"stream": True}, False),
    "vqa, routing": ("/v1/vqa", _QUESTION | _ROUTING, False),
    f"classify, {len(_FEW['labels'])} labels": ("/v1/classify", _FEW, False),
    f"classify, {len(_FEW['labels'])} labels, routing": ("/v1/classify", _FEW | _ROUTING, False),
    f"classify, {len(_MANY['labels'])} labels": ("/v1/classify", _MANY, False),
    f"classify, {len(_MANY['labels'])} labels, routing": ("/v1/classify", _MANY | _ROUTING, False),
}
"""By name: the route, the fields besides the image, whether they are sent as multipart."""

Body = tuple[bytes, str]
"""And its Content-Type."""

Times = dict[tuple[str, str, str], list[float]]
"""Seconds a request, one figure a repeat, by what was asked, whose service, and which of its processes."""


def body(image: bytes, fields: dict[str, Any], *, multipart: bool) -> Body:
    if multipart:
        data = {name: str(value) for name, value in fields.items()}
        request = httpx.Request("POST", "http://service", data=data, files={"image": ("image", image)})
        return request.read(), request.headers["content-type"]
    encoded = base64.b64encode(image).decode()
    return json.dumps({"image": encoded} | fields).encode(), "application/json"


def ask(url: str, path: str, bodies: Sequence[Body], *, clients: int) -> None:
    """`clients` that share the requests, each with one kept connection. Raises RuntimeError for what is no answer."""
    address = urlsplit(url)

    def one(share: Sequence[Body]) -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT)
        for content, content_type in share:
            connection.request("POST", path, content, {"Content-Type": content_type})
            response = connection.getresponse()
            answer = response.read()
            if response.status != http.client.OK or b'"error"' in answer:
                raise RuntimeError(f"{response.status}: {answer[:300]!r}")
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, [bodies[number::clients] for number in range(clients)]))


def spent(server: ServerProcess) -> dict[str, float]:
    """Seconds so far."""
    own = psutil.Process(server.process.pid).cpu_times()
    service = own.user + own.system
    return {"service": service, "decoders": cpu_seconds(psutil.Process(server.process.pid)) - service}


def services(
    stack: ExitStack, options: argparse.Namespace, arguments: Sequence[str], settings: dict[str, str]
) -> dict[str, ServerProcess]:
    if options.audit is None:
        return this_and_other(stack, options.against, arguments, settings)
    place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (place / "key").write_text("5c" * 32)
    audit = {"MEDMOE_AUDIT_DIR": str(place / "trail"), "MEDMOE_AUDIT_KEY": str(place / "key")}
    audited = settings | audit | {"MEDMOE_AUDIT_SYNC": options.audit}
    return {
        "this": stack.enter_context(served(HERE, arguments, audited)),
        "other": stack.enter_context(served(HERE, arguments, settings)),
    }


def measure(options: argparse.Namespace) -> Times:
    asked = {name: way for name, way in _ASKED.items() if options.only in name}
    # Each way has its own: an image that was there before is not decoded again.
    needed = len(asked) * (options.requests + _WARM_UP)
    images = [one.image for one in make_requests(needed, side=options.side, max_tokens=1)]
    # An engine that does nothing.
    arguments = ("-m", "tests.support.service.null_engine", "--tokens", str(options.tokens))
    settings = {"MEDMOE_MODEL": str(options.model), "MEDMOE_MAX_LABELS": "128", "MEDMOE_MAX_LABEL_STEPS": "2048"}
    times: Times = defaultdict(list)
    for repeat in range(options.repeats):
        print(f"repeat {repeat}", file=sys.stderr, flush=True)
        with ExitStack() as stack:
            servers = services(stack, options, arguments, settings)
            for place, (name, (path, fields, multipart)) in enumerate(asked.items()):
                own = [body(image, fields, multipart=multipart) for image in images[place :: len(asked)]]
                warm_up, bodies = own[:_WARM_UP], own[_WARM_UP:]
                for who in sorted(servers, reverse=bool(repeat % 2)):
                    ask(servers[who].url, path, warm_up, clients=options.clients)
                    before, begun = spent(servers[who]), time.perf_counter()
                    ask(servers[who].url, path, bodies, clients=options.clients)
                    waited = (time.perf_counter() - begun) * options.clients
                    times[name, who, "latency"].append(waited / len(bodies))
                    for process, seconds in spent(servers[who]).items():
                        times[name, who, process].append((seconds - before[process]) / len(bodies))
    return times


def rows(times: Times) -> Iterator[dict[str, str]]:
    for name, process in dict.fromkeys((name, process) for name, _, process in times):
        ours = times[name, "this", process]
        row = {"asked": name, "process": process, "ms": shown(median_interval(ours), scale=1e3)}
        if others := times.get((name, "other", process)):
            row["other ms"] = shown(median_interval(others), scale=1e3)
            row["this x other"] = shown(ratio_interval(ours, others))
        yield row


def report(times: Times, *, here: dict[str, Any], into: Path | None) -> None:
    """Print the table; write the times too, where a file is named. `here` is the machine before it was loaded."""
    print(describe(here) + "\n")
    print_table(list(rows(times)))
    if into is not None:
        kept = [{"asked": key[0], "whose": key[1], "process": key[2], "seconds": found} for key, found in times.items()]
        into.write_text(json.dumps({"machine": here, "times": kept}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--audit", choices=("second", "always"), help="with an audit trail, against without; its sync")
    parser.add_argument(
        "--model", type=Path, default=Settings.model_fields["model"].get_default(call_default_factory=True)
    )
    parser.add_argument("--requests", type=int, default=100, help="of each kind, in each repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--side", type=int, default=512, help="of the images, in pixels")
    parser.add_argument("--tokens", type=int, default=16, help="of each answer")
    parser.add_argument("--only", default="", help="kinds of request with this in their name")
    parser.add_argument("--json", type=Path, help="write the times there too")
    options = parser.parse_args()
    here = machine()
    report(measure(options), here=here, into=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
