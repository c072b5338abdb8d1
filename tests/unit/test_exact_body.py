"""`exact_body`: a body of exactly the stated length, or BrokenTransfer."""

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
    """Return the bytes that a client gets, and whether the body ended without an error."""
    received = b""
    try:
        async for chunk in exact_body(upstream):
            received += chunk
    except BrokenTransfer:
        return received, False
    return received, True


CHUNKS = st.lists(st.binary(min_size=1, max_size=8), max_size=6)


@given(CHUNKS)
async def test_body_of_stated_length_is_complete(chunks: list[bytes]) -> None:
    """A body of the stated length arrives complete in any chunks."""
    whole = b"".join(chunks)
    assert await receive(upstream_with(chunks, len(whole))) == (whole, True)
    assert await receive(upstream_with(chunks, None)) == (whole, True)


@given(CHUNKS, st.integers(min_value=0, max_value=60))
async def test_body_of_other_length_raises_before_its_end(
    chunks: list[bytes], length: int
) -> None:
    """If the length is wrong, the client gets fewer bytes than stated."""
    if sum(map(len, chunks)) == length:
        return
    received, ended = await receive(upstream_with(chunks, length))
    assert not ended
    assert len(received) < max(length, 1)
    assert b"".join(chunks).startswith(received)


async def test_head_answer_yields_no_chunks() -> None:
    """The body of an answer to HEAD is empty, with any Content-Length."""
    assert [chunk async for chunk in exact_body(Upstream(headers={}, length=5))] == []
