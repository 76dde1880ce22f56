"""A frame of a file that is not DICOM is chosen before it is sent without metadata."""

import io

import PIL.Image
import pytest

from medmoe.client import call
from medmoe.client.commands.images import prepared
from medmoe.client.errors import InvalidInput
from medmoe.client.images.image import Image
from medmoe.client.questions import Predicate


@pytest.fixture
def pages() -> Image:
    """A TIFF of a black and a white page."""
    file = io.BytesIO()
    black, white = (PIL.Image.new("L", (4, 4), shade) for shade in (0, 255))
    black.save(file, format="TIFF", save_all=True, append_images=[white])
    return Image(file.getvalue())


@pytest.mark.parametrize(("frame", "shade"), [(None, 0), (0, 0), (1, 255)])
def test_what_is_sent_is_that_frame_alone(pages: Image, frame: int | None, shade: int) -> None:
    sent = prepared(pages, pixels_only=True, frame=frame)
    with PIL.Image.open(io.BytesIO(sent.data)) as opened:
        assert opened.getextrema() == (shade, shade)
    named = 0 if frame == 0 else None
    for asked in (
        call.ask(sent, "What?", {"frame": frame}),
        call.classify(sent, ["a", "b"], {"frame": frame}),
        call.explain(sent, "What?", None, {"frame": frame}),
        call.render(sent, {"frame": frame}),
        call.decisions(sent, [Predicate("Is it?")], {"frame": frame}),
    ):
        assert (asked.body or asked.fields).get("frame") == named


def test_a_frame_that_is_not_there_is_refused(pages: Image) -> None:
    with pytest.raises(InvalidInput, match="frames count from 0 and this image has 2"):
        prepared(pages, pixels_only=True, frame=2)


def test_a_file_that_is_sent_whole_keeps_the_frames_number(pages: Image) -> None:
    sent = prepared(pages, pixels_only=False, frame=1)
    assert (sent, call.ask(sent, "What?", {"frame": 1}).fields["frame"]) == (pages, 1)
