"""The licence of a checkpoint is read from its model card, else from its licence file."""

from pathlib import Path

import pytest

from medmoe.model.files.licence import UNKNOWN_LICENCE, stated_licence


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: Apache-2.0\n---\n# Model\n", "Apache-2.0"),
        ("---\nlanguage: en\nlicense: 'mit'\n---\n", "mit"),
        ("---\r\nlicense: Apache-2.0\r\ntags: [a]\r\n---\r\n", "Apache-2.0"),
        ("\ufeff---\nlicense: Apache-2.0  # of the weights\n---\n", "Apache-2.0"),
        ("# Model\n\nlicense: Apache-2.0\n", UNKNOWN_LICENCE),
    ],
)
def test_the_front_matter_of_the_card_states_it(tmp_path: Path, card: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(card, newline="")
    assert stated_licence(tmp_path) == licence


def test_without_a_stated_licence_its_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Model\n")
    (tmp_path / "LICENSE").write_text("text")
    assert stated_licence(tmp_path) == "see LICENSE"
