"""Run one fault against a service and return its outcome in words."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.support.client import ask, connect
from tests.support.misbehaving import SECRET, Door

from .acts import housing
from .answer import HANG_SECONDS, PIECE, fetch, outcome_of, take
from .bench import Bench, Benches, Subject, comes_true, over_tls
from .crowd import drip, leave_at_once, leave_in_the_middle, stall
from .faults import DROPPED, WHOLE, Fault
from .upstream import Upstream

# The service still holds a connection to the upstream seconds after the client has gone.
LOST = "**connection not given back**"
# The connection is closed, but the pool still counts it as in use.
LOST_PLACE = "**place in the pool not given back**"
RELEASE_SECONDS = 5
HOUSE_SECONDS = 5

SLOW_BYTES_A_SECOND = 20_000
SLOW_SECONDS = 5.0


def judge(benches: Benches, subject: Subject, fault: Fault, source: str) -> str:
    """Run a fault for one source of a subject; return the outcome."""
    if fault.needs_tls and not subject.is_over_tls:
        subject = over_tls(subject)
    with benches.lend(subject, fault.environ) as bench:
        if fault.idle:
            house_is_full(bench, source, fault.idle, keep=True)
        handshakes = [bench.handshakes.by_name[name] for name in fault.handshakes]
        bench.upstream.play(*fault.acts, handshakes=handshakes)
        bench.upstream.door = fault.door
        if fault.idle_end is not None:
            bench.upstream.run(end_idle(bench.upstream, fault.idle_end))
        if fault.refused:
            bench.upstream.run(bench.upstream.refuse())
        outcome = CLIENTS[fault.client](bench, fault, source)
        bench.upstream.door = None
        bench.upstream.run(bench.upstream.listen())
        outcome = after(bench, source, outcome) + noise(bench)
        bench.is_spoilt |= "**" in outcome or not subject.is_reused
        return outcome


async def end_idle(upstream: Upstream, end: Door) -> None:
    """End all idle connections; called in the upstream's thread."""
    for writer in upstream.idle:
        end(writer)


def noise(bench: Bench) -> str:
    """Return a note if the log has an unexpected exception or the text of an error of S3."""
    if not bench.subject.logs_outcomes:
        return ""
    texts = ("Traceback", "never retrieved", SECRET)
    lines = bench.service.lines
    found = [at for at, line in enumerate(lines) if any(text in line for text in texts)]
    return f", **unexpected log: {' / '.join(lines[found[0] - 1 :][:40])}**" if found else ""


def after(bench: Bench, source: str, outcome: str) -> str:
    """Return the outcome with a note about what the fault has left behind."""
    if bench.has_ended:
        return outcome if bench.is_spoilt else f"{outcome}, **process ended**"
    lost = ""
    if not bench.is_released(RELEASE_SECONDS):
        lost = LOST
    elif "hangs" not in outcome and not house_is_full(bench, source, bench.subject.places):
        lost = LOST_PLACE
    if not lost:
        return outcome
    return lost if outcome == DROPPED else f"{outcome}, {lost}"


def house_is_full(bench: Bench, source: str, places: int, *, keep: bool = False) -> bool:
    """Return whether as many good downloads as `places` can run at once and end well."""
    upstream = bench.upstream
    upstream.play(housing(keep=keep))
    upstream.house_opens = False
    with contextlib.ExitStack() as clients:
        guests = [clients.enter_context(connect(bench.port)) for _ in range(places)]
        for guest in guests:
            ask(guest, bench.path(source, 10_000))
        full = comes_true(lambda: upstream.busy == places, HOUSE_SECONDS)
        upstream.house_opens = True
        answers = [take(guest) for guest in guests] if full else []
    upstream.idle = {exchange.writer for exchange in upstream.exchanges} if keep else set()
    return full and all((answer.end, answer.status) == ("proper", 200) for answer in answers)


def _fetched(
    bench: Bench,
    fault: Fault,
    source: str,
    on_piece: Callable[[socket.socket], None] = lambda _: None,
    **how: Any,
) -> str:
    path = bench.path(source, fault.size)
    answer = fetch(bench.port, path, fault.headers, on_piece=on_piece, **how)
    outcome = outcome_of(answer, fault.told, asked_range=fault.headers.get("range"))
    if bench.upstream.strays:
        return "**followed the redirect**"
    if outcome == WHOLE and bench.subject.logs_outcomes:
        return WHOLE + _healed(bench, path)
    return outcome


def _healed(bench: Bench, path: str) -> str:
    def told() -> list[str]:
        return [line for line in bench.service.lines if f" {path} " in line]

    if not comes_true(lambda: bool(told()), 5):
        return ", **not logged**"
    return ", resumed" if " resumed " in told()[0] else ""


def _fetched_slowly(bench: Bench, fault: Fault, source: str) -> str:
    begun = time.monotonic()

    def slowly(connection: socket.socket) -> None:
        if time.monotonic() < begun + SLOW_SECONDS:
            time.sleep(PIECE / SLOW_BYTES_A_SECOND)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    return _fetched(bench, fault, source, slowly, receive_buffer=4096, seconds=30)


def _fetched_while_it_ends(bench: Bench, fault: Fault, source: str) -> str:
    bench.is_spoilt = True
    process = bench.service.process

    def end(_: socket.socket) -> None:
        if not ended:
            ended.append(True)
            process.send_signal(signal.SIGTERM)

    ended: list[bool] = []
    outcome = _fetched(bench, fault, source, end)
    try:
        code = process.wait(HANG_SECONDS)
    except subprocess.TimeoutExpired:
        return "**hangs**"
    return outcome if code == 0 else f"{outcome}, exit code {code}"


CLIENTS: dict[str, Callable[[Bench, Fault, str], str]] = {
    "fetches": _fetched,
    "leave at once": lambda bench, _, source: leave_at_once(bench, source),
    "leave in the middle": lambda bench, _, source: leave_in_the_middle(bench, source),
    "stall": lambda bench, _, source: stall(bench, source),
    "drip": lambda bench, _, source: drip(bench, source),
    "is slow": _fetched_slowly,
    "sees SIGTERM": _fetched_while_it_ends,
}
