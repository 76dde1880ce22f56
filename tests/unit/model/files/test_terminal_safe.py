"""Nothing that somebody else wrote reaches a terminal as anything but text on one line."""

import pytest

from medmoe.model.files.terminal_safe import listed, terminal_safe


@pytest.mark.parametrize(
    "text", ["\x1b[31mred", "a\nb", "a\rb", "\x07", "\x9b", "\u202eabc", "\u2066abc", "\u200b", "\ud800", "\u2028"]
)
def test_what_does_not_print_is_escaped(text: str) -> None:
    shown = terminal_safe(text)
    assert shown.isprintable()
    assert "\\" in shown
    shown.encode()


def test_ordinary_text_stays_as_it_is() -> None:
    assert terminal_safe("Größe 中文 /a/b c") == "Größe 中文 /a/b c"


def test_long_values_and_long_lists_are_cut_and_counted() -> None:
    assert len(terminal_safe("x" * 10**7)) < 300
    assert "9999800 characters more" in terminal_safe("x" * 10**7)
    shown = listed(["\x1b" * 1000] * 1000)
    assert len(shown) < 6000
    assert shown.isprintable()
    assert shown.endswith("and 995 more")
