"""Run the real server, whose engine captures routing or does not, and which counts it for some requests only.

    python -m tests.benchmarks.support.routing_server capturing|off

Settings as always in MEDMOE_*. No setting of the service's turns the capture off: its statistics are what it is for.
While it captures, questions whose max_tokens is UNCOUNTED are answered without counting, in the same process as others.
"""

import sys
from typing import Any

from medmoe.server import __main__ as server
from medmoe.server.engine import vllm_engine
from medmoe.server.inference import vqa

VARIANTS = ("off", "capturing")
UNCOUNTED = 17
"""More than any answer takes, and nobody else's number."""


def main() -> int:
    (variant,) = sys.argv[1:]
    if variant not in VARIANTS:
        raise SystemExit(f"one of {', '.join(VARIANTS)}")
    # A name of another room's own: renamed there, nothing would be switched off here.
    counted = vqa._routing

    def routing(state: Any, fields: Any, **more: Any) -> Any:
        return None if variant == "off" or fields.max_tokens == UNCOUNTED else counted(state, fields, **more)

    vqa._routing = routing
    if variant == "off":
        arguments = vllm_engine.engine_arguments
        vllm_engine.engine_arguments = lambda *given, **named: (
            arguments(*given, **named) | {"enable_return_routed_experts": False}
        )
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
