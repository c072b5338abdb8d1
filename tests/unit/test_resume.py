"""Resuming a body: limits, without sockets."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from handlers import Settings, create_app
from handlers.body.resume import BodyResumer, exact_body
from handlers.download import handle
from handlers.errors import BrokenTransfer, DownloadError, NotFound, UpstreamBusy
from handlers.rfc9110.ranges import Part
from tests.support.memory_store import MemoryConnection, MemoryStore, RecordingObserver

BODY = bytes(range(256)) * 400
SIZE = len(BODY)


class Download:
    """A download of the whole object from a store in memory."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        max_resumes: int = 3,
        max_silence: float = 45.0,
        min_progress: int = 1,
    ) -> None:
        self.store = store
        self.observer = RecordingObserver()
        self.max_resumes, self.max_silence = max_resumes, max_silence
        self.min_progress = min_progress
        self.received = bytearray()

    async def run(self, pause: float = 0.0) -> None:
        """Take each chunk after a pause; raise BrokenTransfer."""
        async with AsyncExitStack() as owner:
            resumer = BodyResumer(
                owner, self.max_resumes, self.observer, self.max_silence, self.min_progress
            )
            first = self.store.upstream(self.store.connect(Part(0, SIZE - 1)), owner)
            first.length = SIZE
            async for chunk in exact_body(first, partial(resumer.resume, self.store.open_at)):
                self.received += chunk
                await asyncio.sleep(pause)
        assert not self.store.open_connections


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(BODY)


def break_after_each_chunk(connection: MemoryConnection) -> None:
    """Make each connection break after one chunk."""
    if connection.position + connection.chunk < SIZE:
        connection.fails_at = connection.position + connection.chunk


async def test_body_broken_after_each_chunk_is_complete(store: MemoryStore) -> None:
    """Each byte resets the count of attempts, and each resume is counted once."""
    store.spoil = break_after_each_chunk
    download = Download(store, max_resumes=1)
    await download.run()
    assert download.received == BODY
    assert store.parts == [Part(at, SIZE - 1) for at in range(0, SIZE, store.chunk)]
    assert download.observer.resumed == len(store.parts) - 1
    assert len(download.observer.failed) == len(store.parts) - 1


async def test_body_without_progress_raises_after_max_resumes(store: MemoryStore) -> None:
    """After MAX_RESUMES failed attempts, the first failure is raised."""
    store.failures = [10_000]
    download = Download(store, max_resumes=2)
    with pytest.raises(BrokenTransfer, match="as the test says"):
        await download.run()
    assert download.received == BODY[:10_000]
    assert len(store.connections) == 1 + 2
    assert (len(download.observer.failed), download.observer.resumed) == (1 + 2, 0)


async def test_resumed_answer_without_bytes_is_no_progress(store: MemoryStore) -> None:
    """An upstream whose resumed answers end at once is tried MAX_RESUMES times."""

    def spoil(connection: MemoryConnection) -> None:
        connection.part = Part(connection.part.first, 9_999)

    store.spoil = spoil
    download = Download(store, max_resumes=2)
    with pytest.raises(BrokenTransfer, match=f"ended at 10000 of {SIZE}"):
        await download.run()
    assert len(store.connections) == 1 + 2


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_silence_beyond_the_limit_raises(store: MemoryStore, fault: str) -> None:
    """After max_silence without a byte, BrokenTransfer is raised, with attempts left."""
    store.failures = [10_000]

    def spoil(connection: MemoryConnection) -> None:
        if connection.part.first and fault == "silent":
            connection.gate.clear()

    store.spoil = spoil
    if fault == "refused":
        store.refusals = {1: UpstreamBusy("busy")}
    download = Download(store, max_resumes=1000, max_silence=0.3)
    began = time.monotonic()
    with pytest.raises(BrokenTransfer):
        await download.run()
    assert 0.1 < time.monotonic() - began < 0.3 * 1.8
    assert download.received == BODY[:10_000]


async def test_body_older_than_the_silence_limit_is_resumed(store: MemoryStore) -> None:
    """Each chunk restarts the silence limit, and the client's own time does not count."""
    store.spoil = break_after_each_chunk
    download = Download(store, max_silence=0.05)
    await download.run(pause=0.06)
    assert download.received == BODY
    assert download.observer.resumed == len(store.parts) - 1


@pytest.mark.parametrize("gone", [NotFound("deleted")])
async def test_deleted_version_raises_as_changed(store: MemoryStore, gone: DownloadError) -> None:
    """If the version does not exist any more, BrokenTransfer `changed` is raised at once."""
    store.failures = [10_000]
    store.refusals = {1: gone}
    download = Download(store)
    with pytest.raises(
        BrokenTransfer, match="no longer has this version; resuming at byte 10000: deleted"
    ) as caught:
        await download.run()
    assert caught.value.outcome == "changed"
    assert len(store.connections) == 1


async def test_later_part_with_max_resumes_0_is_opened_once(store: MemoryStore) -> None:
    """With MAX_RESUMES=0, later parts of a multipart answer are still opened."""
    async with AsyncExitStack() as owner:
        upstream = await BodyResumer(owner, 0).open(store.open_at)
        assert b"".join([bytes(chunk) async for chunk in exact_body(upstream)]) == BODY


async def test_later_part_is_retried_and_is_no_resume(store: MemoryStore) -> None:
    """Opening a later part is retried, and does not count as a resume."""
    observer = RecordingObserver()
    attempts = 0

    async def open_at(position: int, stack: object) -> object:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise UpstreamBusy("busy")
        return await store.open_at(position, stack)  # type: ignore[arg-type]

    async with AsyncExitStack() as owner:
        upstream = await BodyResumer(owner, 3, observer).open(open_at)  # type: ignore[arg-type]
        assert b"".join([bytes(chunk) async for chunk in exact_body(upstream)]) == BODY
    assert (observer.failed, observer.resumed) == (["busy", "busy"], 0)


async def test_body_with_little_progress_raises_after_max_resumes(store: MemoryStore) -> None:
    """A store that cuts each chunk gets MAX_RESUMES requests for each `min_progress` bytes."""
    store.spoil = break_after_each_chunk
    download = Download(store, max_resumes=2, min_progress=4 * store.chunk)
    with pytest.raises(BrokenTransfer):
        await download.run()
    assert len(store.connections) == 1 + 2
    assert len(download.received) == 3 * store.chunk


def test_silence_limit_leaves_time_for_an_attempt_after_the_read_timeout() -> None:
    """A silence of 60 seconds is noticed only after 60 seconds, and then resumed."""
    app = create_app(Settings(s3_image_bucket="photos", upstream_read_timeout=60.0))
    none: Any = None
    download = handle.Download(
        runtime=app.state.runtime, record=none, monitor=none, http_version="1.1", is_private=False
    )
    download.owner = AsyncExitStack()
    assert download.body_resumer().max_silence >= 60 + 45
