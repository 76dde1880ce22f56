"""Tell lmms-eval how to ask and to score the questions of local_vqa.yaml, as `medmoe eval` does.

python -m lmms_eval --model openai --include_path tests/benchmarks/lmms_eval --tasks local_vqa ...
"""

from typing import Any

from PIL import Image


def doc_to_visual(doc: dict[str, Any]) -> list[Image.Image]:
    """Return the image, which lmms-eval sends as PNG."""
    return [Image.open(doc["image"]).convert("RGB")]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> str:
    """Return the question as it is."""
    return str(doc["question"])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return 1 for an answer that is the reference but for case, periods and outer white space."""
    return {"exact_match": float(_plain(results[0]) == _plain(doc["answer"]))}


def _plain(text: str) -> str:
    return text.strip().strip(".").lower()
