"""The files of TLS: each misfit is one line that names the setting, and a renewed certificate is taken."""

import asyncio
import base64
import contextlib
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from medmoe.model.errors import ConfigError
from medmoe.server.edge import tls as module
from medmoe.server.edge.tls import ServerTLS
from tests.support.service.certificates import DAY, Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(folder=tmp_path)


def lost(_: Authority) -> Pair:
    return Pair(certificate=Path("/nowhere/tls.crt"), key=Path("/nowhere/tls.key"))


def mismatched(authority: Authority) -> Pair:
    return Pair(certificate=authority.issue("one").certificate, key=authority.issue("two").key)


def swapped(authority: Authority) -> Pair:
    pair = authority.issue("one")
    return Pair(certificate=pair.key, key=pair.certificate)


def keyless(authority: Authority) -> Pair:
    pair = authority.issue("one")
    return Pair(certificate=pair.certificate, key=pair.certificate)


def of_a_version_that_is_none(authority: Authority) -> Pair:
    pair = authority.issue("one")
    encoded = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_bytes(Encoding.DER)
    changed = encoded.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020105"), 1)
    lines = base64.encodebytes(changed).decode()
    pair.certificate.write_text(f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
    return pair


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (lost, "MEDMOE_TLS_CERTIFICATE: /nowhere/tls.crt cannot be read: No such file"),
        (mismatched, "MEDMOE_TLS_KEY: .*two.key is not the key of MEDMOE_TLS_CERTIFICATE"),
        (swapped, "MEDMOE_TLS_CERTIFICATE: .*one.key is not a certificate in PEM"),
        (keyless, "MEDMOE_TLS_KEY: .*one.pem is not a private key in PEM"),
        (
            lambda found: found.issue("old", begin=-3 * DAY, end=-2 * DAY),
            "MEDMOE_TLS_CERTIFICATE: .* has expired on 20",
        ),
        (lambda found: found.issue("new", begin=2 * DAY, end=3 * DAY), "MEDMOE_TLS_CERTIFICATE: .* valid from 20"),
        (lambda found: found.issue("locked", password=b"secret"), "MEDMOE_TLS_KEY: the key is encrypted"),
        (
            of_a_version_that_is_none,
            "MEDMOE_TLS_CERTIFICATE: .*one.pem is not a certificate in PEM",
        ),
    ],
    ids=["missing", "mismatched", "swapped", "without a key", "expired", "not yet valid", "encrypted", "damaged"],
)
def test_files_that_do_not_work_are_named(authority: Authority, pair: Callable[[Authority], Pair], reason: str) -> None:
    found = pair(authority)
    with pytest.raises(ConfigError, match=reason) as refused:
        ServerTLS(found.certificate, found.key, client_ca=None)
    assert "\n" not in str(refused.value)


def test_a_private_key_in_the_place_of_its_file_is_not_quoted(authority: Authority) -> None:
    pair = authority.issue("one")
    with pytest.raises(ConfigError, match="MEDMOE_TLS_KEY: the key file cannot be read") as refused:
        ServerTLS(pair.certificate, Path(pair.key.read_text()), client_ca=None)
    assert "PRIVATE KEY" not in str(refused.value)


def test_an_authority_that_is_none_is_named(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("one")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigError, match=r"MEDMOE_TLS_CLIENT_CA: .*empty.pem is not a certificate"):
        ServerTLS(pair.certificate, pair.key, client_ca=tmp_path / "empty.pem")


def test_old_protocols_are_off(authority: Authority) -> None:
    pair = authority.issue("one")
    context = ServerTLS(pair.certificate, pair.key, client_ca=authority.certificate).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED


def shown(context: ssl.SSLContext, authority: Authority) -> str:
    """Return the common name of the certificate that a client sees."""
    trusting = ssl.create_default_context(cafile=authority.certificate)
    ours, theirs = (ssl.MemoryBIO(), ssl.MemoryBIO()), (ssl.MemoryBIO(), ssl.MemoryBIO())
    server = context.wrap_bio(*ours, server_side=True)
    client = trusting.wrap_bio(*theirs, server_hostname="localhost")
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            ours[0].write(theirs[1].read())
            theirs[0].write(ours[1].read())
    found = client.getpeercert()
    assert found is not None
    return str(dict(part[0] for part in found["subject"])["commonName"])  # type: ignore[misc, arg-type]


def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = authority.issue("first"), authority.issue("second")
    tls = ServerTLS(first.certificate, first.key, client_ca=None)
    assert shown(tls.context, authority) == "first"
    # Damaged, as a copy that goes wrong leaves it.
    first.certificate.write_bytes(of_a_version_that_is_none(authority).certificate.read_bytes())
    tls._look()
    assert shown(tls.context, authority) == "first"
    caplog.clear()
    # A certificate that comes before its key.
    first.certificate.write_bytes(second.certificate.read_bytes())
    for _ in range(2):
        tls._look()
        assert shown(tls.context, authority) == "first"
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    first.key.write_bytes(second.key.read_bytes())
    before = tls.context
    tls._look()
    assert shown(tls.context, authority) == "second"
    # Handshakes go on with it in another thread, and some have crashed the process when it was changed.
    assert shown(before, authority) == "first"


async def test_a_look_that_fails_is_not_the_last(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS", 0.01)
    first, second = authority.issue("first"), authority.issue("second")
    tls = ServerTLS(first.certificate, first.key, client_ca=None)
    look, looks = tls._look, 0

    def failing_first() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("can't start new thread")
        look()

    monkeypatch.setattr(tls, "_look", failing_first)
    first.certificate.write_bytes(second.certificate.read_bytes())
    first.key.write_bytes(second.key.read_bytes())
    async with tls.renewed(), asyncio.timeout(60):
        while shown(tls.context, authority) != "second":
            await asyncio.sleep(0.01)


def test_a_changed_authority_of_clients_is_taken(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    other = Authority(folder=tmp_path / "others")
    pair, trusted = authority.issue("one"), tmp_path / "trusted.pem"
    trusted.write_bytes(authority.certificate.read_bytes())
    tls = ServerTLS(pair.certificate, pair.key, client_ca=trusted)

    def certificates() -> list[bytes]:
        return tls.context.get_ca_certs(binary_form=True)

    ours = certificates()
    trusted.write_text("damaged")
    tls._look()
    assert certificates() == ours
    trusted.write_bytes(other.certificate.read_bytes())
    tls._look()
    assert len(certificates()) == 1
    assert certificates() != ours
    assert tls.context.verify_mode is ssl.CERT_REQUIRED
