"""A certificate authority of the tests' own, and a TLS server that it has certified."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A certificate authority, which certifies servers."""

    def __init__(self, folder: Path) -> None:
        self.bundle = folder / "ca.pem"
        """The CA bundle with the certificate of this authority."""

        self._chain = folder / "server.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        is_ca = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder("private CA", self._key, DAY).add_extension(is_ca, critical=True)
        self.bundle.write_bytes(self._sign(builder))

    def certify(self, address: str = "127.0.0.1", *, validity: timedelta = DAY) -> ssl.SSLContext:
        """Return the context of a server, whose certificate expires in `validity` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        builder = _builder("store", key, validity).add_extension(names, critical=False)
        private = key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._chain.write_bytes(private + self._sign(builder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain)
        return context

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)


def _builder(
    subject: str, key: ec.EllipticCurvePrivateKey, validity: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("private CA"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(now + validity)
    )


def certified_server(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the CA bundle of a new authority, and the context of a server on 127.0.0.1."""
    authority = Authority(folder)
    return authority.bundle, authority.certify()
