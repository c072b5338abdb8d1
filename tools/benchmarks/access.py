"""Whether the time of a refusal tells how nearly right a token or a signature was.

    python -m tools.benchmarks.access

Guesses that share none, half, or all but one of their characters with the right one are checked
in turns, in a new order each time. Told is how far the medians of such groups are apart, beside
how far those of two halves of one group are: what is above that would be a difference.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROUNDS = 20_000

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from handlers.access.authorization import token_digests, token_rejection_reason  # noqa: E402
from handlers.access.signed_url import make_signature, rejection_reason  # noqa: E402 - found by the line above

TOKEN = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=64))
PATH = "/tasks/1/image"
EXPIRES = 4_000_000_000


def nearly(right: str, shared: int) -> str:
    """Return a text as long as the right one, whose first `shared` characters alone are right."""
    return right[:shared] + "".join("A" if char != "A" else "B" for char in right[shared:])


def token_check(guess: str) -> Callable[[], object]:
    """Return what checks a request that bears `guess`."""
    digests = token_digests([TOKEN])
    scope = {"headers": [(b"authorization", f"Bearer {guess}".encode())]}
    return lambda: token_rejection_reason(digests, scope)


def signature_check(guess: str, key_id: str = "a") -> Callable[[], object]:
    """Return what checks an address with `guess` as its signature."""
    parameters = [("expires", str(EXPIRES)), ("key", key_id), ("signature", guess)]
    return lambda: rejection_reason({"a": TOKEN}, PATH, parameters, max_lifetime=1)


def nanoseconds(checks: Mapping[str, Callable[[], object]]) -> dict[str, list[int]]:
    """Return how long each check took, each time; they take turns."""
    took: dict[str, list[int]] = {name: [] for name in checks}
    order = list(checks)
    for _ in range(ROUNDS):
        random.shuffle(order)
        for name in order:
            begun = time.perf_counter_ns()
            checks[name]()
            took[name].append(time.perf_counter_ns() - begun)
    return took


def tell(what: str, checks: Mapping[str, Callable[[], object]]) -> None:
    """Measure some checks, and say how far they are apart."""
    took = nanoseconds(checks)
    noise = max(
        abs(statistics.median(times[::2]) - statistics.median(times[1::2]))
        for times in took.values()
    )
    medians = {name: statistics.median(times) for name, times in took.items()}
    apart = max(medians.values()) - min(medians.values())
    sys.stdout.write(
        what + ", ".join(f"{name}: {ns:,.0f} ns" for name, ns in medians.items()) + "\n"
    )
    sys.stdout.write(f"  apart {apart:.0f} ns; two halves of one group {noise:.0f} ns\n")


def main() -> None:
    """Measure tokens, signatures, and the ids of keys."""
    shares = {"none shared": 0, "half shared": 32, "all but one": 63}
    tell("token    ", {name: token_check(nearly(TOKEN, n)) for name, n in shares.items()})
    right = make_signature(TOKEN, PATH, EXPIRES, None)
    shares = {"none shared": 0, "half shared": 21, "all but one": 42}
    signatures = {name: signature_check(nearly(right, n)) for name, n in shares.items()}
    tell("signature", signatures)
    tell(
        "key's id ",
        {
            "known": signature_check(nearly(right, 0)),
            "unknown": signature_check(nearly(right, 0), "b"),
        },
    )


if __name__ == "__main__":
    main()
