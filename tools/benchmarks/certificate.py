"""The certificate of an origin, made for one run; it is its own authority."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

_KEY = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
_NAMES = ["-subj", "/CN=origin", "-addext", "subjectAltName=IP:127.0.0.1,DNS:origin"]
_IS_NO_CA = ["-addext", "basicConstraints=critical,CA:FALSE"]  # rustls accepts no other


class Certificate(NamedTuple):
    """The files of a certificate for 127.0.0.1 and of its private key."""

    file: Path
    key: Path

    @classmethod
    def made_in(cls, directory: Path) -> Certificate:
        """Make a certificate with openssl."""
        made = cls(directory / "origin.pem", directory / "origin.key")
        files = ["-keyout", str(made.key), "-out", str(made.file)]
        command = ["openssl", "req", *_KEY, *_NAMES, *_IS_NO_CA, *files]
        subprocess.run(command, check=True, capture_output=True)
        return made

    def environ(self) -> dict[str, str]:
        """Return the variables by which botocore and rustls trust it."""
        return {"AWS_CA_BUNDLE": str(self.file), "SSL_CERT_FILE": str(self.file)}

    def client(self) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts it."""
        return ssl.create_default_context(cafile=str(self.file))

    def server(self) -> ssl.SSLContext:
        """Return the TLS context of a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context
