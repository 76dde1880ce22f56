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


def test_a_renewed_token_is_sent_and_a_broken_file_takes_the_last_one_not_away(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first")
    (tmp_path / "sources.toml").write_text('[pacs]\nurl = "http://a/"\ntoken_file = "token"\n')
    source = read_sources(tmp_path / "sources.toml")["pacs"]
    (tmp_path / "token").write_text("second\n")
    assert source.authorization == b"Bearer second"
    (tmp_path / "token").write_text("")
    assert source.authorization == b"Bearer second"
    (tmp_path / "token").unlink()
    assert source.authorization == b"Bearer second"


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
        ('[pacs]\nurl = "http://a/"\npassword_file = "reader:SECRET"\n', "password_file cannot be read"),
        ('[pacs]\nurl = "http://a/"\ntoken_file = "SECRET"\n', "token_file cannot be read"),
        ('[pacs]\nurl = "http://a/"\npassword_file = "latin"\n', "latin is not UTF-8"),
        ('[pacs]\nurl = "http://a/"\npassword_file = "token"\n', "token does not hold user:password"),
        ('[pacs]\nurl = "http://a/"\ntoken_file = "empty"\n', "empty does not hold a token"),
        ('[pacs]\nurl = "http://a/"\ntoken_file = "lines"\n', "lines does not hold a token"),
        ('[pacs]\nurl = "https://a/"\nca_file = "token"\n', "token is not a PEM file"),
        ('[pacs]\nurl = "https://a/"\nca_file = "absent"\n', "absent is not a PEM file"),
        ('[pacs]\nurl = "http://a/"\nca_file = "token"\n', "ca_file goes with https"),
        ('[pacs]\nurl = "http://a/bild arkiv"\n', "percent-encoded path"),
        ('[pacs]\nurl = "http://a/bild\u00e9"\n', "percent-encoded path"),
        ('[pacs]\nurl = "http://' + "\u00e9" * 70 + '/"\n', "pacs.url"),
        ('["PACS 1"]\nurl = "http://a/"\n', "PACS 1"),
        ("SECRET = \n", "is not TOML, at line 1"),
        ('pacs = "SECRET"\n', "pacs"),
    ],
    ids=range(22),
)
def test_mistakes(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(text)
    (tmp_path / "latin").write_bytes(b"reader:\xe9")
    (tmp_path / "empty").touch()
    (tmp_path / "token").write_text("SECRET\n")
    (tmp_path / "lines").write_text("SECRET\nSECRET\n")
    with pytest.raises(ConfigError, match="MEDMOE_DICOMWEB_SOURCES") as caught:
        read_sources(path)
    assert named in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://pacs:8042/rs", b"pacs:8042"),
        ("http://pacs/rs", b"pacs"),
        ("https://pacs:443/rs", b"pacs"),
        ("https://pacs:80/rs", b"pacs:80"),
        ("http://[2001:db8::7]:8042/rs", b"[2001:db8::7]:8042"),
        ("http://[2001:db8::7]/rs", b"[2001:db8::7]"),
    ],
)
def test_the_host_header_names_host_and_port(tmp_path: Path, url: str, authority: bytes) -> None:
    path = tmp_path / "sources.toml"
    path.write_text(f'[pacs]\nurl = "{url}"\n')
    assert read_sources(path)["pacs"].authority == authority
