"""Sign a checkpoint directory with Ed25519, and verify the signature and every file.

The signature is over the bytes of signed_files.json. It is the 64 bytes that RFC 8032 defines, in signed_files.sig.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.bounded_read import read_bounded, read_configured, read_secret
from medmoe.model.signing.signed_files import LIST_FILE, SIGNATURE_FILE, check_files, list_files

_MAX_KEY_BYTES = 64 * 1024
_SIGNATURE_BYTES = 64


def generate_key(path: Path) -> Path:
    """Write a new private key to `path` (mode 0600) and its public key beside it; return the path of the latter.

    Raises ConfigError for a file that is already there, OSError; neither leaves one of the two alone.
    """
    key = Ed25519PrivateKey.generate()
    public = path.with_name(path.name + ".pub")
    _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    try:
        text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write_new(public, text, mode=0o644)
    except BaseException:
        path.unlink()
        raise
    return public


def sign_directory(directory: Path, key_file: Path) -> int:
    """Write signed_files.json and its signature; return the number of files.

    Raises ConfigError for a file that is no Ed25519 private key, CheckpointError, OSError.
    """
    key = _private_key(key_file)
    listed = list_files(directory)
    # The old signature goes first: an interrupted run leaves an unsigned directory.
    (directory / SIGNATURE_FILE).unlink(missing_ok=True)
    (directory / LIST_FILE).write_bytes(listed)
    (directory / SIGNATURE_FILE).write_bytes(key.sign(listed))
    return check_files(directory, listed)


def verify_directory(directory: Path, public_key_file: Path) -> int:
    """Verify the signature, then every file; return the number of files. Nothing is parsed before its hash is right.

    Raises ConfigError for a file that is no Ed25519 public key, CheckpointError for a directory that is unsigned,
    signed with another key, or not as it was signed.
    """
    key = _public_key(public_key_file)
    try:
        for name in (LIST_FILE, SIGNATURE_FILE):
            if (directory / name).is_symlink():
                raise CheckpointError(f"{directory}: {name} is a link; only regular files are signed")
        signature = read_bounded(directory / SIGNATURE_FILE, limit=_SIGNATURE_BYTES)
        listed = read_bounded(directory / LIST_FILE)
        key.verify(signature, listed)
        return check_files(directory, listed)
    except FileNotFoundError as error:
        raise CheckpointError(f"{directory} is not signed (`medmoe sign` does it)") from error
    except InvalidSignature as error:
        raise CheckpointError(f"{directory} was not signed with the key of {public_key_file}") from error
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be verified: {error.strerror}") from error


def _private_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(read_secret(path, name="the key file", limit=_MAX_KEY_BYTES), password=None)
    except TypeError as error:
        raise ConfigError(f"{path} is encrypted; sign with an unencrypted key") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is no private key in PEM (`medmoe sign --generate` makes one)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no Ed25519 key (`medmoe sign --generate` makes one)")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(read_configured(path, name="the key", limit=_MAX_KEY_BYTES))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} is no Ed25519 public key")
    return key


def _write_new(path: Path, text: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists, and no key is replaced: choose another --key") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    except BaseException:
        path.unlink()
        raise
