"""Choose one window for all slices of a series."""

from typing import Literal

from medmoe.server.schemas.images import AppliedWindow, Rendering

WindowSource = Literal["request", "middle_slice", "each_slice"]
_OF_THE_SLICE = ("file", "full")
_NARROWEST = 0.01
"""Width in the image's units; the notation of a request has six decimals."""


def depends_on_slice(asked: str | None) -> bool:
    """Return whether the window that a request asks for differs from slice to slice."""
    return asked is None or any(part.strip() in _OF_THE_SLICE for part in asked.split(","))


def one_window(asked: str | None, rendering: Rendering) -> tuple[str | None, WindowSource]:
    """Return the window to send with every slice, and where it comes from.

    `rendering` is that of the middle slice with the window `asked`. Colours, look-up tables and sigmoids stay as each
    slice has them.
    """
    if not depends_on_slice(asked):
        return asked, "request"
    if not rendering.windows or not all(map(_can_be_asked_for, rendering.windows)):
        return asked, "each_slice"
    return ",".join(map(_text, rendering.windows)), "middle_slice"


def _can_be_asked_for(window: AppliedWindow) -> bool:
    return (
        window.centre is not None
        and window.width is not None
        and window.width >= _NARROWEST
        and window.function in ("LINEAR", "LINEAR_EXACT")
    )


def _text(window: AppliedWindow) -> str:
    """Return the window in the notation of a request, whose windows are LINEAR_EXACT (PS3.3 C.11.2.1.3)."""
    assert window.centre is not None
    assert window.width is not None
    centre, width = window.centre, window.width
    if window.function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, _NARROWEST)
    return f"{_number(centre)}/{_number(width)}"


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
