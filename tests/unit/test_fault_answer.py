"""`outcome_of` of the faults tool: a harmful answer is in bold."""

from __future__ import annotations

from email.message import Message

import pytest

from tools.faults.acts import FIRST, FLIPPED, GZIPPED, SECOND, SIZE
from tools.faults.answer import Answer, outcome_of

PROBLEM = {"content-type": "application/problem+json"}
PART = "bytes=1000-1999"
PART_HEADERS = {"content-range": f"bytes 1000-1999/{SIZE}"}


def answer(status: int, body: bytes, end: str, **lines: str) -> Answer:
    headers = Message()
    for name, value in lines.items():
        headers[name.replace("_", "-")] = value
    return Answer(status, headers, bytearray(body), end)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (answer(200, FIRST.body, "proper"), "whole"),
        (answer(200, FIRST.body, "proper", etag='"v1"'), "whole"),
        (answer(200, FIRST.body, "proper", etag='"v2"'), "**taken for whole**"),
        (answer(200, FIRST.body[:-1], "proper"), "**taken for whole**"),
        (answer(200, FLIPPED.body, "proper"), "**taken for whole**"),
        (answer(200, FIRST.body[:-1], "broken"), "broken visibly"),
        (answer(200, FLIPPED.body[:-1], "broken"), "broken visibly"),
        (answer(200, b"", "broken"), "broken visibly"),
        (answer(200, FIRST.body[1:], "broken"), "**wrong bytes**"),
        (answer(200, FIRST.body[:9000] + SECOND.body[9000:], "proper"), "**two versions mixed**"),
        (answer(200, FIRST.body[:9000] + SECOND.body[:500], "broken"), "**two versions mixed**"),
        (answer(200, FIRST.body[:9000], "none"), "**hangs**"),
        (answer(206, FIRST.body[1000:2000], "proper", **PART_HEADERS), "whole"),
        (answer(206, FIRST.body[1000:2000], "proper"), "**taken for whole**"),
        (answer(206, FIRST.body[1001:2001], "proper", **PART_HEADERS), "**taken for whole**"),
        (answer(0, b"", "none"), "**hangs**"),
        (answer(0, b"", "broken"), "**no answer**"),
        (answer(502, b'{"status": 502}', "proper", **PROBLEM), "502"),
        (answer(502, b'{"status": 503}', "proper", **PROBLEM), "**502, of another status**"),
        (answer(503, b'{"status": 503}', "proper", **PROBLEM), "**503 without Retry-After**"),
        (answer(503, b'{"status": 503}', "proper", retry_after="5", **PROBLEM), "503"),
        (answer(404, b"not here", "proper"), "404, bare"),
        (answer(404, b"SECRET-OF-THE-STORE", "proper"), "**404, the store's words**"),
        (answer(500, b"", "proper"), "**500**"),
    ],
)
def test_fault_answer_has_its_outcome(given: Answer, outcome: str) -> None:
    """The outcome tells a complete answer from a broken, mixed or wrong one."""
    assert outcome_of(given, {}, asked_range=PART) == outcome


def test_answer_without_expected_header_is_bold() -> None:
    """A complete answer without an expected header is in bold."""
    whole = answer(200, FIRST.body, "proper")
    assert outcome_of(whole, {"x": "y"}, asked_range=None) == "whole, **without x**"


def test_gzipped_object_has_the_plain_length() -> None:
    """The gzipped test object is as long as the plain one."""
    assert len(GZIPPED.body) == SIZE
