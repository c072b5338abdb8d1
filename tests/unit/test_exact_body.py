"""The body to the byte: whole, or visibly not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handlers.body.upstream import Upstream, exact_body
from handlers.errors import BrokenTransfer


def upstream_of(chunks: list[bytes], length: int | None) -> Upstream:
    left = iter(chunks)

    async def read() -> bytes:
        return next(left, b"")

    return Upstream(headers={}, length=length, read=read)


async def received_of(upstream: Upstream) -> tuple[bytes, bool]:
    """Return what a client gets, and whether the body came to an end."""
    received = b""
    try:
        async for chunk in exact_body(upstream):
            received += chunk
    except BrokenTransfer:
        return received, False
    return received, True


CHUNKS = st.lists(st.binary(min_size=1, max_size=8), max_size=6)


@given(CHUNKS)
async def test_body_of_the_right_length_is_whole(chunks: list[bytes]) -> None:
    """However it is cut, a body of its stated length arrives whole."""
    whole = b"".join(chunks)
    assert await received_of(upstream_of(chunks, len(whole))) == (whole, True)
    assert await received_of(upstream_of(chunks, None)) == (whole, True)


@given(CHUNKS, st.integers(min_value=0, max_value=60))
async def test_body_of_another_length_never_looks_whole(chunks: list[bytes], length: int) -> None:
    """A body of other than its stated length breaks, short of that length at the client."""
    if sum(map(len, chunks)) == length:
        return
    received, ended = await received_of(upstream_of(chunks, length))
    assert not ended
    assert len(received) < max(length, 1)
    assert b"".join(chunks).startswith(received)


async def test_answer_to_head_has_no_body() -> None:
    """The body of an answer to HEAD is empty, whatever its length."""
    assert [chunk async for chunk in exact_body(Upstream(headers={}, length=5))] == []
