"""An image that was decoded a moment ago is not decoded again, and nobody finds another's."""

from collections.abc import Sequence

import pytest

from medmoe.server.errors import UnreadableImage
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.schemas.images import ImageFields, Rendering

PLAIN = ImageFields()
RENDERING = Rendering(format="PNG", colour="RGB", frame=0, frames=1, steps=(), windows=())


class Decoders:
    """Stands in for the children: remembers what it was asked for, and refuses a certain file."""

    def __init__(self) -> None:
        self.asked: list[str | bytes] = []

    async def decode(self, sent: str | bytes, fields: ImageFields, *, tenant: str | None) -> DecodedImage:
        self.asked.append(sent)
        if sent == b"damaged":
            raise UnreadableImage("the image is damaged or truncated")
        name = str(len(self.asked))
        return DecodedImage(sha256=name, width=2, height=2, rendering=RENDERING, size=(2, 2), pixels=bytes(12))


def cache(decoders: Decoders, *, most: int = 8) -> tuple[ImageCache, list[bool]]:
    counted: list[bool] = []
    return ImageCache(decoders, most=most, count=counted.append), counted  # type: ignore[arg-type]


async def names(kept: ImageCache, asked: Sequence[tuple[str | bytes, ImageFields, str | None]]) -> list[str]:
    return [(await kept.decode(sent, fields, salt=salt)).sha256 for sent, fields, salt in asked]


@pytest.mark.parametrize("sent", [b"a file", "base64", b"x" * 2**21], ids=["bytes", "text", "large"])
async def test_the_same_again_is_not_decoded_again(sent: str | bytes) -> None:
    decoders = Decoders()
    kept, counted = cache(decoders)
    assert await names(kept, [(sent, PLAIN, None)] * 3) == ["1", "1", "1"]
    assert (len(decoders.asked), counted) == (1, [False, True, True])


@pytest.mark.parametrize(
    "other",
    [
        (b"b", PLAIN, "tenant"),
        ("a", PLAIN, "tenant"),
        (b"a", ImageFields(window="lung"), "tenant"),
        (b"a", ImageFields(frame=0), "tenant"),
        (b"a", PLAIN, "another"),
        (b"a", PLAIN, None),
    ],
    ids=["bytes", "text", "window", "frame", "tenant", "nobody"],
)
async def test_whatever_differs_is_another_image(other: tuple[str | bytes, ImageFields, str | None]) -> None:
    kept, _ = cache(Decoders())
    assert await names(kept, [(b"a", PLAIN, "tenant"), other]) == ["1", "2"]


async def test_the_image_that_nobody_asked_for_longest_goes() -> None:
    kept, _ = cache(Decoders(), most=2)
    asked: list[tuple[str | bytes, ImageFields, str | None]] = [(name, PLAIN, None) for name in (b"a", b"b", b"a")]
    assert await names(kept, asked) == ["1", "2", "1"]
    assert await names(kept, [(b"c", PLAIN, None), (b"a", PLAIN, None), (b"b", PLAIN, None)]) == ["3", "1", "4"]


async def test_none_is_kept_where_none_may_be() -> None:
    kept, counted = cache(Decoders(), most=0)
    assert await names(kept, [(b"a", PLAIN, None)] * 2) == ["1", "2"]
    assert counted == [False, False]


async def test_a_refused_image_is_looked_at_again() -> None:
    decoders = Decoders()
    kept, counted = cache(decoders)
    for _ in range(2):
        with pytest.raises(UnreadableImage):
            await kept.decode(b"damaged", PLAIN, salt=None)
    assert len(decoders.asked) == 2
    assert not counted, "an image that was refused was not decoded"
