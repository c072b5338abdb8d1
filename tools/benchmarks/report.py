"""RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .cases import CASES, Case
from .measures import SECONDS
from .peer import ARTICLE, ARTICLE_SYNC, DOWNSPOUT, DOWNSPOUT_UVICORN
from .results import Results, Spread, ratio_text
from .scale import Scale
from .targets import TARGETS, Target

_OURS = (DOWNSPOUT, DOWNSPOUT_UVICORN)
_ARTICLE_OWN = {ARTICLE: "4 s", ARTICLE_SYNC: "20 s"}
_METHOD = """\
Made by `./scripts/bench --write`; `./scripts/bench --quick` shows in two minutes that it runs, and
`--cases`, `--peers` and `--rounds` choose. All is on loopback, and each peer is one
process where nothing else is said; nothing is pinned, so that clients, origin and peer share the
cores. The origin is nginx, which serves random files out of the page cache and ignores
signatures; nginx as a peer signs nothing. `direct` is the client before the origin itself, whose
CPU and memory stand in that row: what the rest can reach at most. `naive starlette` is what people
write, with aiobotocore's client; `bare starlette` is a route and kept connections without any
check: what is above its CPU time is the price of all that downspout does. Over TLS means between
peer and origin; clients speak plain HTTP, as behind a load balancer.

In every round all peers have their turn, beginning with another one each time, each after a
warm-up. A ratio is taken within a round; given are medians (rounds: {rounds}), and in
parentheses the least and the most. Single downloads and crowds are taken by threads that
`recv_into` one buffer, small ones by wrk. A crowd finds the peer's connections to the origin open;
where they are new, the origin closes each after its answer. CPU is that of the peer's processes
by `/proc/PID/stat`, memory their RSS; slow readers take 50 KB/s with a receive buffer of 64 KiB.
Where it says capped, the origin gives each connection so much (`SO_MAX_PACING_RATE`), and where
it says so begins each answer after a while. No peer writes a line for each request."""


def report(
    results: Mapping[str, Results], scale: Scale, *, rounds: int, lines: Sequence[str]
) -> str:
    """Return all of it as Markdown."""
    parts = ["# The service beside its peers", "\n".join(f"- {line}" for line in lines)]
    parts += ["![Ratios to nginx with its default buffers](results.svg)", "## To reach"]
    parts += ["\n".join(_targets(results, scale)), "## How", _METHOD.format(rounds=rounds)]
    for case in CASES:
        if case.name in results:
            parts += [f"## {case.title.format(**scale.words())}"]
            parts += _case(case, results[case.name])
    return "\n\n".join(parts) + "\n"


def _targets(results: Mapping[str, Results], scale: Scale) -> Iterator[str]:
    titles = {case.name: case.title.format(**scale.words()) for case in CASES}
    yield _row("case", "to reach", *(f"{peer} |" for peer in _OURS))
    yield _row(*["---"] * (2 + 2 * len(_OURS)))
    for target in TARGETS:
        cells = (cell for peer in _OURS for cell in _found(target, results, peer))
        yield _row(titles[target.case], target.text(), *cells)


def _found(target: Target, results: Mapping[str, Results], peer: str) -> tuple[str, str]:
    found = target.found(results, peer)
    if found is None:
        return "", "not measured"
    is_ratio = target.reference is not None or target.one_worker is not None
    return _spread(found, None if is_ratio else 0), (
        "reached" if target.reached(found) else "**not reached**"
    )


def _case(case: Case, results: Results) -> Iterator[str]:
    yield "\n".join(_table(case, results))
    yield f"Load averages before it: {results.load}."
    if results.failures:
        yield "\n".join(f"- {failure}" for failure in results.failures)


def _table(case: Case, results: Results) -> Iterator[str]:
    main, *others = (figure for figure in case.figures if figure.compared)
    ratios = [(main, reference) for reference in case.references]
    ratios += [(figure, case.references[0]) for figure in others]
    # What no peer here has a ratio to would be an empty column.
    ratios = [pair for pair in ratios if results.ratio(pair[1], pair[1], pair[0])]
    heads = [f"{figure.name} / {reference}" for figure, reference in ratios]
    own = _ARTICLE_OWN if SECONDS in case.figures else {}
    heads += [figure.name for figure in case.figures]
    heads += ["the article's own"] if own else []
    yield _row("peer", *heads)
    yield _row("---", *["--:"] * len(heads))
    for peer in results.values:
        cells = [_spread(results.ratio(peer, reference, figure)) for figure, reference in ratios]
        for figure in case.figures:
            spread = results.spread(peer, figure)
            cells.append(f"{spread.median:,.{figure.digits}f}" if spread else "")
        cells += [own.get(peer, "")] if own else []
        yield _row(f"**{peer}**" if peer in _OURS else peer, *cells)


def _spread(spread: Spread | None, digits: int | None = None) -> str:
    if spread is None:
        return ""
    median, least, most = (
        ratio_text(value) if digits is None else f"{value:,.{digits}f}"
        for value in (spread.median, spread.least, spread.most)
    )
    return f"{median} ({least}..{most})"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
