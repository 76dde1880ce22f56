"""API keys: who a key belongs to, and what a key file may hold."""

import hashlib
from pathlib import Path

import pytest

from medmoe.model.errors import ConfigError
from medmoe.server.auth.tenants import Tenants, new_key, read_key_file
from medmoe.server.errors import RateLimited, Unauthenticated

KEY, LINE = new_key("ward-7")
HASH = LINE.split()[1]


def test_a_new_key_is_long_and_only_its_hash_is_kept() -> None:
    assert len(KEY) > 40
    assert hashlib.sha256(KEY.encode()).hexdigest() == HASH
    assert KEY not in LINE
    assert new_key("ward-7")[0] != KEY


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "new\nline", "ä"])
def test_a_name_that_the_file_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a name is"):
        new_key(name)


def test_a_key_finds_its_tenant_and_no_other_does() -> None:
    other = new_key("lab")
    tenants = Tenants([("ward-7", HASH), ("lab", other[1].split()[1])], requests_per_minute=None)
    ward, lab = tenants.find(KEY), tenants.find(other[0])
    assert ward.log_id != lab.log_id
    assert ward.cache_salt != lab.cache_salt
    assert ward.cache_salt is not None
    for wrong in (None, "", HASH, KEY[:-1], KEY + "x", KEY.upper(), "\udcff"):
        with pytest.raises(Unauthenticated):
            tenants.find(wrong)


def test_the_log_does_not_name_the_tenant() -> None:
    assert "ward" not in str(Tenants([("ward-7", HASH)], requests_per_minute=None).find(KEY).log_id)


def test_two_keys_of_one_name_share_its_rate() -> None:
    key, line = new_key("ward-7")
    tenants = Tenants([("ward-7", HASH), ("ward-7", line.split()[1])], requests_per_minute=1)
    tenants.find(KEY).spend()
    with pytest.raises(RateLimited):
        tenants.find(key).spend()


def test_without_keys_everybody_is_one_tenant() -> None:
    tenants = Tenants((), requests_per_minute=None)
    assert tenants.find(None) is tenants.find("anything")
    assert tenants.find(None).cache_salt is None


def test_a_key_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\n{LINE}\n  lab\t{'a' * 64}  \n")
    assert read_key_file(path) == (("ward-7", HASH), ("lab", "a" * 64))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key"),
        (b"# nothing\n", "holds no key"),
        (f"ward-7 {KEY}\n".encode(), "line 1"),
        (f"{LINE}\nlab {HASH}\n".encode(), "line 2 of the key file repeats"),
        (f"{LINE} more\n".encode(), "line 1"),
        (b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_a_key_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_key_file(path)
    assert KEY not in str(caught.value)


@pytest.mark.timeout(10)
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
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        read_key_file(tmp_path / "keys")
