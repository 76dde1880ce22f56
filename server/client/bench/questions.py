"""What a benchmark asks."""

from dataclasses import dataclass

from medmoe.client.images.image import Picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """The nth request asks about the nth picture, again from the first after the last."""

    pictures: tuple[Picture, ...]
    text: str
    max_tokens: int
