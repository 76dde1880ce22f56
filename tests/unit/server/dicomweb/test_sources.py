"""The operator's file of sources: every mistake in it is named before the service starts, and no secret is quoted."""

from pathlib import Path

import pytest

from medmoe.model.errors import ConfigError
from medmoe.server.dicomweb.sources import read_sources


def test_sources(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("reader:secret\n")
    (tmp_path / "token").write_text("t0ken\n")
    path = tmp_path / "sources.toml"
    path.write_text(
        """
        [pacs]
        url = "http://10.0.0.7:8042/dicom-web/"
        password_file = "password"
        store = true

        [vna]
        url = "https://vna.hospital.example/rs"
        token_file = "token"
        """
    )
    pacs, vna = read_sources(path).values()
    assert (pacs.name, pacs.path, pacs.origin.port, pacs.store, pacs.tls) == ("pacs", "/dicom-web", 8042, True, None)
    assert pacs.authorization == b"Basic cmVhZGVyOnNlY3JldA=="
    assert (vna.origin.port, vna.store, vna.authorization) == (443, False, b"Bearer t0ken")
    assert vna.tls is not None
    assert "t0ken" not in repr(vna)
    assert read_sources(None) == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[pacs]\n", "pacs.url"),
        ('[pacs]\nurl = "ftp://a/b"\n', "pacs.url"),
        ('[pacs]\nurl = "http://user:SECRET@a/b"\n', "pacs.url"),
        ('[pacs]\nurl = "http://a:port/"\n', "pacs.url"),
        ('[pacs]\nurl = "http://a/?x=SECRET"\n', "pacs.url"),
        ('[pacs]\nurl = "http://a/"\nstor = true\n', "pacs.stor"),
        ('[pacs]\nurl = "http://a/"\npassword_file = "a"\ntoken_file = "b"\n', "password_file or token_file"),
        ('[pacs]\nurl = "http://a/"\npassword_file = "absent"\n', "absent"),
        ('[pacs]\nurl = "https://a/"\nca_file = "sources.toml"\n', "cannot be read"),
        ('["PACS 1"]\nurl = "http://a/"\n', "PACS 1"),
        ("SECRET = \n", "is not TOML, at line 1"),
        ('pacs = "SECRET"\n', "pacs"),
    ],
    ids=range(12),
)
def test_mistakes(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="MEDMOE_DICOMWEB_SOURCES") as caught:
        read_sources(path)
    assert named in str(caught.value)
    assert "SECRET" not in str(caught.value)
