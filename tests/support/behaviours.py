"""Behaviours of an upstream whose body goes wrong after the header."""

from __future__ import annotations

from .misbehaving import Exchange

BODY = bytes(range(256)) * 4  # 1024 bytes


async def longer_than_asked(exchange: Exchange) -> None:
    await exchange.head(200, "transfer-encoding: chunked")
    await exchange.raw(b"400\r\n" + BODY + b"\r\n1\r\nx\r\n0\r\n\r\n")


async def longer_in_one_chunk(exchange: Exchange) -> None:
    await exchange.head(200, "transfer-encoding: chunked")
    await exchange.raw(b"401\r\n" + BODY + b"x\r\n0\r\n\r\n")


async def chunks_without_an_end(exchange: Exchange) -> None:
    await exchange.head(200, "transfer-encoding: chunked")
    await exchange.raw(b"400\r\n" + BODY + b"\r\n")


async def ends_short_of_its_length(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1024")
    await exchange.body(BODY[:1000])


async def resets(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1024")
    await exchange.body(BODY[:1000])
    exchange.reset()


async def falls_silent(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1024")
    await exchange.body(BODY[:1000])
    await exchange.hang()


async def malformed_chunk(exchange: Exchange) -> None:
    await exchange.head(200, "transfer-encoding: chunked")
    await exchange.raw(b"5\r\n" + BODY[:5] + b"\r\n")
    await exchange.pause(0.05)
    await exchange.raw(b"ZZ\r\nxx")
    await exchange.hang()
