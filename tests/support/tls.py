"""The server's side of TLS on a connection of asyncio, with control over each record."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress

CHUNK = 64 * 1024

# A record of application data that no key has encrypted.
FORGED_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)


class TlsWriter(asyncio.StreamWriter):
    """Encrypts into the records of a TCP connection, and `reader` has the decrypted bytes.

    asyncio's own TLS can neither end TCP without close_notify nor damage a record. Here,
    `write_eof` and `transport.abort` act on TCP alone.
    """

    def __init__(
        self, tcp_reader: asyncio.StreamReader, tcp: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(tcp.transport, tcp.transport.get_protocol(), tcp_reader, loop)
        self.reader = asyncio.StreamReader()
        self._tcp_reader = tcp_reader
        self._has_ended = False
        self.lost = asyncio.Event()
        """Is set when the client has ended TCP, and not only TLS."""
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)

    async def handshake(self) -> None:
        """Shake hands; raise ConnectionError if the client breaks it off or both do not agree."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self._to_send.read())
                if not (data := await self._tcp_reader.read(CHUNK)):
                    raise ConnectionAbortedError("closed during the handshake") from None
                self._received.write(data)
            except ssl.SSLError as error:
                raise ConnectionAbortedError(str(error)) from error
            else:
                return
            finally:
                self.send(self._to_send.read())

    async def receive(self) -> None:
        """Decrypt for `reader` until the client closes; go on with TCP alone after an error."""
        self._decrypt()  # The first bytes may have come with the end of the handshake.
        with suppress(ConnectionError):
            while data := await self._tcp_reader.read(CHUNK):
                self._received.write(data)
                self._decrypt()
        self.lost.set()
        self.reader.feed_eof()

    def _decrypt(self) -> None:
        with suppress(ssl.SSLError):
            while plain := self._tls.read(CHUNK):
                self.reader.feed_data(plain)
            self.reader.feed_eof()  # The client has sent close_notify.

    def encrypt(self, data: bytes) -> bytes:
        """Return the records for `data`, to be sent later or never."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
        return self._to_send.read()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` in records."""
        self.send(self.encrypt(bytes(data)))

    def send(self, data: bytes) -> None:
        """Send bytes on TCP as they are, unless TCP has ended."""
        if not (self._has_ended or self.is_closing()):
            super().write(data)

    def write_damaged(self, data: bytes) -> None:
        """Send `data` in a record whose authentication tag has a flipped bit."""
        record = bytearray(self.encrypt(data))
        record[-1] ^= 1
        self.send(bytes(record))

    def write_eof(self) -> None:
        """End TCP with FIN, without close_notify."""
        self._has_ended = True
        with suppress(OSError):  # The client has closed the connection first.
            super().write_eof()

    def close_notify(self) -> None:
        """Say that no more records follow; TCP stays open."""
        with suppress(ssl.SSLError):  # The client's close_notify has not arrived yet.
            self._tls.unwrap()
        self.send(self._to_send.read())

    def alert(self) -> None:
        """Send the fatal alert with which OpenSSL answers a forged record."""
        self._received.write(FORGED_RECORD)
        with suppress(ssl.SSLError):
            self._tls.read(1)
        self.send(self._to_send.read())

    def close(self) -> None:
        """Close TLS, then TCP."""
        self.close_notify()
        super().close()


@asynccontextmanager
async def encrypted(
    tcp_reader: asyncio.StreamReader, tcp: asyncio.StreamWriter, context: ssl.SSLContext
) -> AsyncGenerator[tuple[asyncio.StreamReader, TlsWriter]]:
    """Shake hands; yield the reader and the writer of the plain bytes; close at the end."""
    writer = TlsWriter(tcp_reader, tcp, context)
    with closing(writer):
        await writer.handshake()
        receiving = asyncio.create_task(writer.receive())
        try:
            yield writer.reader, writer
        finally:
            receiving.cancel()
