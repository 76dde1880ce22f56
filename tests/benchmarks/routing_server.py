"""The real server with routing captured and counted, captured only, or neither.

    python -m tests.benchmarks.routing_server counted|captured|off

Settings as always in MEDMOE_*. No setting of the service's turns the capture off: its statistics are what it is for.
"""

import sys
from typing import Any

from medmoe.server import __main__ as server
from medmoe.server import answering
from medmoe.server.engine import vllm_engine

VARIANTS = ("counted", "captured", "off")


def main() -> int:
    (variant,) = sys.argv[1:]
    if variant not in VARIANTS:
        raise SystemExit(f"one of {', '.join(VARIANTS)}")
    if variant != "counted":
        # A name of another room's own: renamed there, nothing would be switched off here.
        assert hasattr(answering, "_routing")
        answering._routing = _nothing
    if variant == "off":
        arguments = vllm_engine.engine_arguments
        vllm_engine.engine_arguments = lambda *given, **named: (
            arguments(*given, **named) | {"enable_return_routed_experts": False}
        )
    return server.main()


def _nothing(*_: Any, **__: Any) -> None:
    """Stands in for counting."""


if __name__ == "__main__":
    sys.exit(main())
