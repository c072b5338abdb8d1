"""A body of exactly its length, or a visibly broken one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handlers.body.resume import exact_body
from handlers.body.upstream import Upstream
from handlers.errors import BrokenTransfer


def upstream_with(chunks: list[bytes], length: int | None) -> Upstream:
    left = iter(chunks)

    async def read() -> bytes:
        return next(left, b"")

    return Upstream(headers={}, length=length, read=read)


async def receive(upstream: Upstream) -> tuple[bytes, bool]:
    """Return the bytes that a client gets, and whether the body came to an end."""
    received = b""
    try:
        async for chunk in exact_body(upstream):
            received += chunk
    except BrokenTransfer:
        return received, False
    return received, True


CHUNKS = st.lists(st.binary(min_size=1, max_size=8), max_size=6)


@given(CHUNKS)
async def test_body_of_the_stated_length_is_whole(chunks: list[bytes]) -> None:
    """It arrives whole in any chunks."""
    whole = b"".join(chunks)
    assert await receive(upstream_with(chunks, len(whole))) == (whole, True)
    assert await receive(upstream_with(chunks, None)) == (whole, True)


@given(CHUNKS, st.integers(min_value=0, max_value=60))
async def test_body_of_another_length_breaks_short_of_it(chunks: list[bytes], length: int) -> None:
    """The client gets fewer bytes than stated, so that it sees the break."""
    if sum(map(len, chunks)) == length:
        return
    received, ended = await receive(upstream_with(chunks, length))
    assert not ended
    assert len(received) < max(length, 1)
    assert b"".join(chunks).startswith(received)


async def test_answer_without_a_body_yields_nothing() -> None:
    """The body of an answer to HEAD is empty, whatever its length."""
    assert [chunk async for chunk in exact_body(Upstream(headers={}, length=5))] == []
