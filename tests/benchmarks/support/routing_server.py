"""Run the real server, whose engine captures routing or does not, and which counts it for some requests only.

    python -m tests.benchmarks.support.routing_server capturing|off

Settings as always in MEDMOE_*. No setting of the service's turns the capture off: its statistics are what it is for.
While it captures, questions whose max_tokens is UNCOUNTED are answered without counting and without the score of how
unlike the training images the image is, and those whose max_tokens is UNSCORED without that score alone, in the same
process as others.
"""

import sys
from typing import Any

from medmoe.server import __main__ as server
from medmoe.server.engine import vllm_engine
from medmoe.server.inference import vqa

VARIANTS = ("off", "capturing")
UNCOUNTED, UNSCORED = 17, 18
"""More than any answer takes, and nobody else's numbers."""


def main() -> int:
    (variant,) = sys.argv[1:]
    if variant not in VARIANTS:
        raise SystemExit(f"one of {', '.join(VARIANTS)}")
    # A name of another room's own: renamed there, nothing would be switched off here.
    counted = vqa._routing

    def routing(state: Any, fields: Any, **more: Any) -> Any:
        return None if variant == "off" or fields.max_tokens == UNCOUNTED else counted(state, fields, **more)

    vqa._routing = routing
    # The engine scores images that have an id, and no others.
    inputs = vllm_engine._ImageInputs.__call__

    def image_inputs(self: Any, request: Any) -> Any:
        found = inputs(self, request)
        if variant == "off" or request.max_tokens in (UNCOUNTED, UNSCORED):
            for item in found["image"]:
                item.pop("image_id", None)
        return found

    vllm_engine._ImageInputs.__call__ = image_inputs
    if variant == "off":
        arguments = vllm_engine.engine_arguments
        vllm_engine.engine_arguments = lambda *given, **named: (
            arguments(*given, **named) | {"enable_return_routed_experts": False}
        )
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
