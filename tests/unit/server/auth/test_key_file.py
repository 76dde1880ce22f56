"""What a key file may hold."""

from pathlib import Path

import pytest

from medmoe.model.errors import ConfigError
from medmoe.server.auth.key_file import KeyEntry, new_key, parse_key_file, read_key_file
from medmoe.server.auth.scopes import ALL_SCOPES

KEY, LINE = new_key("ward-7")
HASH = LINE.split()[1]


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "new\nline", "ä"])
def test_a_name_that_the_file_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a name is"):
        new_key(name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_key_file_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\n{LINE}\n  lab\t{'a' * 64}  scopes=stats requests_per_minute=60\n", encoding)
    assert parse_key_file(read_key_file(path)) == (
        KeyEntry(name="ward-7", key_hash=bytes.fromhex(HASH), requests_per_minute=None, scopes=ALL_SCOPES),
        KeyEntry(name="lab", key_hash=b"\xaa" * 32, requests_per_minute=60, scopes=frozenset({"stats"})),
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key"),
        (b"# nothing\n", "holds no key"),
        (f"ward-7 {KEY}\n".encode(), "line 1"),
        (f"{LINE}\nlab {HASH}\n".encode(), "line 2 of the key file repeats"),
        (f"{LINE} more\n".encode(), "line 1"),
        (f"{LINE} {KEY}\n".encode(), "line 1"),
        (f"{LINE} limit=5\n".encode(), "line 1 of the key file has options other than"),
        (f"{LINE} scopes=ask scopes=stats\n".encode(), "options other than one"),
        (f"{LINE} scopes=ask,root\n".encode(), "admin, ask, stats"),
        (f"{LINE} scopes=ask,ask\n".encode(), "scopes that are not"),
        (f"{LINE} scopes=,\n".encode(), "scopes that are not"),
        (f"{LINE} requests_per_minute=0\n".encode(), "no number from 1"),
        (f"{LINE} requests_per_minute=many\n".encode(), "no number from 1"),
        (f"{LINE}\nward-7 {'b' * 64} requests_per_minute=5\n".encode(), "line 2 of the key file has another"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
    # The keys are new in each process: they must not be in the names.
    ids=[
        "empty", "comments", "key", "hash twice", "word", "key as option", "unknown option", "scopes twice",
        "unknown scope", "scope twice", "no scope", "rate 0", "rate in words", "rates differ", "not UTF-8",
    ],
)  # fmt: skip
def test_a_key_file_that_cannot_be_meant_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_key_file(content)
    assert str(caught.value).startswith("MEDMOE_API_KEYS: ")
    assert KEY not in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("place", ["/dev/zero", "/"])
def test_what_is_no_file_or_never_ends_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key_file(Path(place))


def test_a_huge_key_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{LINE}\n" + "#" * 2**20)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key_file(path)


def test_a_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MEDMOE_API_KEYS: .* No such file or directory"):
        read_key_file(tmp_path / "keys")
