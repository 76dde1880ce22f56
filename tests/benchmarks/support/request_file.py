"""Write the one file of requests that every stack answers: images, questions and lengths, made up and always the same.

A file and not a function, so that what was asked can be kept beside what was measured.
"""

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.benchmarks.kernels.quantised_parity import WORDS, drawn_image

_MOTIFS = 64
"""Different drawings; each request's image is one of them with a mark of its own, which is what makes it new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One request."""

    number: int
    image: bytes
    """A JPEG file, different from every other request's."""
    question: str
    max_tokens: int

    @property
    def data_url(self) -> str:
        return f"data:image/jpeg;base64,{base64.b64encode(self.image).decode()}"


def make_requests(count: int, *, side: int, max_tokens: int) -> list[Asked]:
    """Requests 0 to `count` - 1, with square images of `side` pixels."""
    motifs = [
        drawn_image(number).resize((side, side), Image.Resampling.BICUBIC) for number in range(min(count, _MOTIFS))
    ]
    return [
        Asked(
            number=number,
            image=_jpeg(motifs[number % _MOTIFS], mark=number),
            question=WORDS[number % len(WORDS)],
            max_tokens=max_tokens,
        )
        for number in range(count)
    ]


def write_requests(path: Path, requests: Iterable[Asked]) -> None:
    """One JSON object a line."""
    lines = (
        json.dumps(
            {
                "number": asked.number,
                "image": base64.b64encode(asked.image).decode(),
                "question": asked.question,
                "max_tokens": asked.max_tokens,
            }
        )
        for asked in requests
    )
    path.write_text("".join(f"{line}\n" for line in lines))


def read_requests(path: Path) -> list[Asked]:
    """What `write_requests` wrote."""
    found = []
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        found.append(Asked(**(fields | {"image": base64.b64decode(fields["image"])})))
    return found


def _jpeg(image: Image.Image, *, mark: int) -> bytes:
    """With `mark` in grey levels along the upper edge, large enough to outlive compression and resizing."""
    image = image.copy()
    block = max(image.width // 16, 1)
    for place in range(16):
        level = 255 if mark >> place & 1 else 0
        image.paste((level, level, level), (place * block, 0, (place + 1) * block, block))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=90)
    return file.getvalue()
