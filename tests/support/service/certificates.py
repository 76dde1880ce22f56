"""Certificates of an authority of the tests, as PEM files."""

import datetime
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


@dataclass(kw_only=True, slots=True)
class Authority:
    """An authority, whose files lie in `folder`."""

    folder: Path
    name: str = "authority"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def certificate(self) -> Path:
        """The file of the authority's own certificate, valid for a day."""
        path = self.folder / f"{self.name}.pem"
        if not path.exists():
            builder = _builder(self.name, self._key, issuer=self.name, begin=-DAY, end=DAY)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def issue(
        self,
        name: str,
        *,
        client: bool = False,
        begin: datetime.timedelta = -DAY,
        end: datetime.timedelta = DAY,
        password: bytes | None = None,
    ) -> Pair:
        """Issue a certificate for this machine, or for a client; `begin` and `end` are from now on."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = _builder(name, key, issuer=self.name, begin=begin, end=end)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pair = Pair(certificate=self.folder / f"{name}.pem", key=self.folder / f"{name}.key")
        certificate = builder.sign(self._key, hashes.SHA256())
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
        return pair


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, *, issuer: str, begin: datetime.timedelta, end: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    subject, authority = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
    )
