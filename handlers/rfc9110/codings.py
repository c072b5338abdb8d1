"""Content codings (RFC 9110, section 8.4): from a Content-Encoding header to its codings."""

import re

TCHARS = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
TOKENS = re.compile(rf"{TCHARS}(?:[ \t]*,[ \t]*{TCHARS})*")

# "aws-chunked" was the coding of an upload to S3, not of the stored bytes.
_NO_CODINGS = ("aws-chunked", "identity")


def content_codings(header: str) -> tuple[str, ...] | None:
    """Return the codings of a body, () for an unencoded body; None if `header` is invalid."""
    if not header:
        return ()
    if not TOKENS.fullmatch(header):
        return None
    codings = (coding.strip(" \t") for coding in header.split(","))
    return tuple(coding for coding in codings if coding.lower() not in _NO_CODINGS)
