"""The cases: what is measured of whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from . import measures, peer, scale
from .lab import Origin, Running
from .results import Figure


@dataclass(frozen=True)
class Case:
    """A case: `title` may name the sizes of the scale.

    The ratios are to the `references`: of its first figure to all, of the others to the first.
    """

    name: str
    title: str
    measure: Callable[[Running, scale.Scale], measures.Measured]
    figures: tuple[Figure, ...]
    peers: tuple[str, ...]
    references: tuple[str, ...] = (peer.NGINX, peer.ARTICLE)
    origin: Origin = Origin()  # noqa: RUF009 - a tuple, which nothing changes
    workers: int = 1
    fresh: bool = False


_OURS = (peer.DOWNSPOUT_UVICORN, peer.DOWNSPOUT)
_SOME = (peer.DIRECT, peer.NGINX, peer.NAIVE, peer.OBSTORE_SMALL, *_OURS)
_TLS = (*_SOME, peer.BARE, peer.NGINX_TUNED)
_MANY = (*_TLS, peer.TUNED, peer.OBSTORE)
_MOST = (*_MANY, peer.ARTICLE)
# With its default buffers nginx would write all that slow readers wait for to temporary files.
_SLOW = tuple(name for name in _MANY if name not in (peer.NGINX, peer.BARE))

_BODY = (measures.SPEED, measures.CPU_GIB, measures.RESIDENT)
_REQUESTS = (
    measures.RATE,
    measures.CPU_REQUEST,
    measures.P50,
    measures.P99,
    measures.FAILED,
    measures.RESIDENT,
)
_START = (measures.OVER_DIRECT, measures.FIRST_BYTE)
_BEGIN = (measures.START, measures.IDLE)
_MEMORY = (measures.MEMORY, measures.LEFT, measures.SERVED)

_alone = partial(partial, measures.alone)
_small = partial(partial, measures.small)
_first_byte = partial(partial, measures.first_byte)

_ARTICLE = Case(
    "article",
    "{article} alone, the article's experiment",
    _alone(scale.ARTICLE),
    (measures.SECONDS,),
    (peer.DIRECT, peer.NGINX, peer.ARTICLE, peer.ARTICLE_SYNC, *_OURS),
)
_LARGE = Case("alone-100M", "{large} alone", _alone(scale.LARGE), _BODY, _MOST)
_HUGE = Case("alone-1G", "{huge} alone", _alone(scale.HUGE), _BODY, _MOST)
_CROWD = Case("crowd", "{crowd} x {medium} at once", measures.crowd, _BODY, _MOST)
# Who makes 64 clients at once finishes none of them in the time.
_SMALL = Case("small-64", "{small} on 64 connections", _small(64), _REQUESTS, _MANY)
_FIRST_BYTE = Case(
    "first-byte-16K", "first byte of {small}", _first_byte(scale.SMALL), _START, _MOST
)
_SLOW_READERS = Case(
    "slow",
    "{readers} slow readers of {large}",
    measures.slow,
    _MEMORY,
    _SLOW,
    references=(peer.NGINX_TUNED, peer.OBSTORE_SMALL),
    fresh=True,
)
_CAPPED = Case(
    "capped-0",
    "{large} alone, capped at 40 MiB/s",
    _alone(scale.LARGE),
    _BODY,
    _SOME,
    references=(peer.DIRECT, peer.NGINX),
    origin=Origin(latency=0.0),
)


def _workers(number: int, case: Case) -> Case:
    return replace(
        case,
        name=f"{case.name}-{number}w",
        title=f"{case.title}, {number} workers",
        peers=_SOME,
        references=(peer.NGINX,),
        workers=number,
    )


def _over_tls(case: Case) -> Case:
    return replace(
        case,
        name=f"{case.name}-tls",
        title=f"{case.title}, over TLS",
        peers=tuple(name for name in case.peers if name in _TLS),
        origin=case.origin._replace(tls=True),
    )


CASES = (
    _ARTICLE,
    Case("alone-10M", "{medium} alone", _alone(scale.MEDIUM), _BODY, (*_MOST, peer.ARTICLE_SYNC)),
    _LARGE,
    _over_tls(_LARGE),
    _HUGE,
    _over_tls(_HUGE),
    _CROWD,
    _over_tls(_CROWD),
    replace(
        _CROWD,
        name="crowd-new",
        title=f"{_CROWD.title}, each on a new connection to the origin",
        # These two peers fail if the origin closes a connection.
        peers=tuple(name for name in _MOST if name not in (peer.DIRECT, peer.BARE)),
        origin=Origin(keeps_connections=False),
    ),
    _workers(2, _CROWD),
    _workers(4, _CROWD),
    Case("small-1", "{small} on 1 connection", _small(1), _REQUESTS, _MOST),
    Case("small-16", "{small} on 16 connections", _small(16), _REQUESTS, _MOST),
    _SMALL,
    _over_tls(_SMALL),
    _workers(2, _SMALL),
    _workers(4, _SMALL),
    _FIRST_BYTE,
    _over_tls(_FIRST_BYTE),
    Case("first-byte-100M", "first byte of {large}", _first_byte(scale.LARGE), _START, _MOST),
    Case(
        "start",
        "start",
        measures.start,
        _BEGIN,
        tuple(name for name in _MOST if name != peer.DIRECT),
        fresh=True,
    ),
    _SLOW_READERS,
    _over_tls(_SLOW_READERS),
    _CAPPED,
    _over_tls(_CAPPED),
    replace(
        _CAPPED,
        name="capped-30",
        title=f"{_CAPPED.title}, first byte after 30 ms",
        origin=Origin(latency=0.03),
    ),
    replace(
        _SLOW_READERS,
        name="slow-capped",
        title=f"{_SLOW_READERS.title}, capped at 40 MiB/s",
        peers=(peer.DIRECT, peer.OBSTORE_SMALL, peer.NGINX_TUNED, peer.ONE_STREAM, *_OURS),
        origin=Origin(latency=0.0),
    ),
)
