"""Find the certificates to trust and to show: arguments, or environment variables."""

import os
import ssl
from pathlib import Path

CA_VARIABLE = "MEDMOE_CA_FILE"
CERTIFICATE_VARIABLE = "MEDMOE_CLIENT_CERTIFICATE"
KEY_VARIABLE = "MEDMOE_CLIENT_KEY"


def tls_context(
    *, ca_file: str | Path | None, client_certificate: str | Path | None, client_key: str | Path | None
) -> ssl.SSLContext | bool:
    """Return what httpx verifies the service with: True for the usual authorities and no certificate of the client.

    `ca_file` replaces the usual authorities; `client_key` None takes the key from the certificate's file. None reads
    MEDMOE_CA_FILE, MEDMOE_CLIENT_CERTIFICATE and MEDMOE_CLIENT_KEY. Raises ValueError for a file that cannot be used.
    """
    authority = ca_file or os.environ.get(CA_VARIABLE) or None
    certificate = client_certificate or os.environ.get(CERTIFICATE_VARIABLE) or None
    key = client_key or os.environ.get(KEY_VARIABLE) or None
    if key is not None and certificate is None:
        raise ValueError(f"{KEY_VARIABLE} needs {CERTIFICATE_VARIABLE}")
    if authority is None and certificate is None:
        return True
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise ValueError(f"{CA_VARIABLE}: not a PEM file of certificates that can be read") from error
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except OSError as error:
            raise ValueError(
                f"{CERTIFICATE_VARIABLE}: not a certificate with its key in PEM, or not its key"
            ) from error
    return context


def _no_password() -> str:
    raise ValueError(f"{KEY_VARIABLE}: the key is encrypted; give one without a password")
