"""A signed checkpoint: whatever differs from what was signed is refused, in one line that names it."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.signing import signed_files
from medmoe.model.signing.signature import generate_key, sign_directory, verify_directory
from medmoe.model.signing.signed_files import LIST_FILE, SIGNATURE_FILE


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def public_key(key: Path) -> Path:
    return key.with_name("key.pub")


@pytest.fixture
def signed(tmp_path: Path, key: Path) -> Path:
    directory = tmp_path / "checkpoint"
    (directory / "extra").mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (directory / "tokenizer.json").write_text("[]")
    (directory / "extra" / "é.txt").write_text("1")
    assert sign_directory(directory, key) == 4
    return directory


def test_a_signed_directory_is_taken(signed: Path, public_key: Path, key: Path) -> None:
    assert verify_directory(signed, public_key) == 4
    before = (signed / LIST_FILE).read_bytes(), (signed / SIGNATURE_FILE).read_bytes()
    sign_directory(signed, key)
    assert ((signed / LIST_FILE).read_bytes(), (signed / SIGNATURE_FILE).read_bytes()) == before
    assert key.stat().st_mode & 0o777 == 0o600
    linked = signed.with_name("linked")
    linked.symlink_to(signed)
    assert verify_directory(linked, public_key) == 4


def _flip(name: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return change


def _swap(directory: Path) -> None:
    one, two = directory / "config.json", directory / "tokenizer.json"
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


def _link(name: str, target: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / name
        path.rename(directory.parent / "moved")
        path.symlink_to(target)

    return change


def _resign(directory: Path) -> None:
    other = directory.parent / "other"
    generate_key(other)
    sign_directory(directory, other)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_flip("model.safetensors"), "model.safetensors is not the file that was signed"),
        (_flip("extra/é.txt"), "extra/é.txt is not the file that was signed"),
        (lambda directory: (directory / "model.safetensors").write_bytes(b""), "model.safetensors is not the file"),
        (_swap, "config.json is not the file that was signed"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "lacks tokenizer.json, which was signed"),
        (lambda directory: (directory / "chat.py").write_text(""), "holds chat.py, which was not signed"),
        (lambda directory: (directory / ".hidden").write_text(""), "holds .hidden, which was not signed"),
        (lambda directory: (directory / "extra" / LIST_FILE).write_text(""), "holds extra/signed_files.json, which"),
        (_link("config.json", "../moved"), "config.json is a link"),
        (_link("extra", "../moved"), "extra is a link"),
        (_link(LIST_FILE, "../moved"), "signed_files.json is a link"),
        (_link(SIGNATURE_FILE, "../moved"), "signed_files.sig is a link"),
        (lambda directory: os.mkfifo(directory / "pipe"), "pipe is no regular file"),
        (_flip(LIST_FILE), "was not signed with the key of"),
        (_flip(SIGNATURE_FILE), "was not signed with the key of"),
        (lambda directory: (directory / SIGNATURE_FILE).write_bytes(b""), "was not signed with the key of"),
        (lambda directory: (directory / SIGNATURE_FILE).write_bytes(bytes(65)), "larger than 64 bytes"),
        (lambda directory: (directory / SIGNATURE_FILE).unlink(), "is not signed"),
        (lambda directory: (directory / LIST_FILE).unlink(), "is not signed"),
        (_resign, "was not signed with the key of"),
        (shutil.rmtree, "is not signed"),
    ],
)
def test_what_differs_is_refused_in_one_line(
    signed: Path, public_key: Path, change: Callable[[Path], None], reason: str
) -> None:
    change(signed)
    with pytest.raises(CheckpointError) as refused:
        verify_directory(signed, public_key)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_of_other_kinds_are_refused(signed: Path, key: Path, tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    texts = {
        "absent": None,
        "noise": b"noise",
        "private": key.read_bytes(),
        "other": other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }
    for name, text in texts.items():
        if text is not None:
            (tmp_path / name).write_bytes(text)
        with pytest.raises(ConfigError):
            verify_directory(signed, tmp_path / name)
    secret = load_pem_private_key(key.read_bytes(), None)
    for encoded, reason in (
        (secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a")), "encrypted"),
        (other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "no Ed25519 key"),
        (b"noise", "no private key"),
    ):
        (tmp_path / "secret").write_bytes(encoded)
        with pytest.raises(ConfigError, match=reason):
            sign_directory(signed, tmp_path / "secret")


def test_the_files_of_all_folders_are_counted(signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two"):
        (signed / folder).mkdir()
        for number in range(8):
            (signed / folder / str(number)).touch()
    monkeypatch.setattr(signed_files, "_MOST_FILES", 20)
    with pytest.raises(CheckpointError, match="more than 20 files"):
        sign_directory(signed, key)


def test_links_are_not_signed(signed: Path, key: Path) -> None:
    (signed / "link").symlink_to("config.json")
    with pytest.raises(CheckpointError, match="link is a link"):
        sign_directory(signed, key)


def test_a_key_is_never_written_over(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(ConfigError, match="key exists, and no key is replaced: choose another --key"):
        generate_key(key)
    assert key.read_bytes() == before


def test_no_private_key_is_left_without_its_public_one(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("another's")
    with pytest.raises(ConfigError, match=r"key\.pub exists"):
        generate_key(tmp_path / "key")
    assert [path.name for path in tmp_path.iterdir()] == ["key.pub"]


def test_openssl_agrees(signed: Path, public_key: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public_key, "-rawin"]
    command += ["-in", signed / LIST_FILE, "-sigfile", signed / SIGNATURE_FILE]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
