"""Hold a complete answer of the service for tests of the client."""

from typing import Any

WORDS = "caf\u00e9 \u2028 \x85 \u4e2d\u6587"
"""Text with Unicode line separators and multi-byte letters."""
ANSWER: dict[str, Any] = {
    "id": "vqa-1",
    "model": "tiny",
    "answer": WORDS,
    "finish_reason": "stop",
    "confidence": None,
    "abstained": False,
    "usage": {"prompt_tokens": 1, "image_tokens": 1, "completion_tokens": 1, "cached_tokens": 0},
    "timings": {"fetch": 0.0, "image": 0.1, "queue": 0.1, "engine": 0.1, "total": 0.3},
    "provenance": {
        "image_sha256": "0",
        "width": 1,
        "height": 1,
        "rendering": {"format": "PNG", "colour": "L", "frame": 0, "frames": 1, "steps": [], "windows": []},
        "mode": "pad",
        "resized_to": [1, 1],
        "weights_sha256": None,
        "adapter_sha256": None,
        "dtype": None,
        "temperature": 0.0,
        "seed": None,
        "max_tokens": 8,
        "min_confidence": None,
    },
}
