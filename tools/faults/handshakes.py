"""Handshakes: each is a way for the upstream to begin a connection over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.misbehaving import reset

Misstep = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Takes the connection from the client's first bytes on, and never shakes hands."""


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Answer nothing until the client closes the connection."""
    await reader.read()


async def reset_it(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    reset(writer)


async def end_it(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection with FIN."""
    writer.close()


async def plain_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a server that speaks plain HTTP at this port."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    writer.close()


MISSTEPS: dict[str, Misstep] = {
    "silent": silence,
    "reset": reset_it,
    "ended": end_it,
    "plain HTTP": plain_http,
}


class Handshakes:
    """All handshakes by their names, with certificates that are made for one run."""

    def __init__(self, folder: Path) -> None:
        trusted, unknown = (Authority(_made(folder / name)) for name in ("trusted", "unknown"))
        self.bundle = trusted.bundle
        """The CA bundle that the service trusts."""

        self.trusted = trusted.certify()
        self.by_name: dict[str, ssl.SSLContext | Misstep] = {
            **MISSTEPS,
            "trusted": self.trusted,
            "untrusted": unknown.certify(),
            "expired": trusted.certify(validity=timedelta(days=-1)),
            "another host": trusted.certify("127.0.0.2"),
            "TLS 1.2": (tls_1_2 := trusted.certify()),
            "no common cipher": (no_cipher := trusted.certify()),
        }
        for context in (tls_1_2, no_cipher):
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        no_cipher.set_ciphers("AES128-SHA")  # It needs an RSA key, and the certificate has none.


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
