"""SigV4 signatures, compared with botocore's."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from handlers.sources.s3.sigv4 import sign_request

# Valid header values that botocore does not trim.
VALUES = st.from_regex(r"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True)
HEADERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("range", "if-match", "x-amz-checksum-mode"), VALUES)
)
SECRETS = st.from_regex(r"[A-Za-z0-9/+]{1,40}", fullmatch=True)
CREDENTIALS = st.builds(ReadOnlyCredentials, SECRETS, SECRETS, st.none() | SECRETS)
HOSTS = st.sampled_from(["photos.s3.eu-central-1.amazonaws.com", "127.0.0.1:9000", "[::1]:9000"])
MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1))  # noqa: DTZ001


@given(
    method=st.sampled_from(["GET", "HEAD"]),
    host=HOSTS,
    key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    headers=HEADERS,
    credentials=CREDENTIALS,
    moments=st.lists(MOMENTS, min_size=1, max_size=3),
    region=st.sampled_from(["us-east-1", "eu-central-1", "auto"]),
)
def test_signature_equals_the_one_of_botocore(
    method: str,
    host: str,
    key: str,
    headers: dict[str, str],
    credentials: ReadOnlyCredentials,
    moments: list[datetime],
    region: str,
) -> None:
    """Any request has the same signature as in botocore, also on the next day."""
    path = "/photos/" + quote(key, safe="/~")
    for moment in moments:
        now = moment.replace(tzinfo=UTC)
        ours = sign_request(
            method,
            host,
            path,
            headers,
            region=region,
            credentials=credentials,
            now=now.timestamp(),
        )
        request = AWSRequest(method, f"http://{host}{path}", headers=headers, data=b"")
        assert urlsplit(request.url).path == path
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(botocore.auth, "get_current_datetime", lambda at=moment: at)
            S3SigV4Auth(credentials, "s3", region).add_auth(request)
        theirs = {name.lower(): value for name, value in request.headers.items()}
        assert ours.pop("host") == host
        assert ours == theirs


def test_secret_rotated_on_the_same_day_changes_the_signature() -> None:
    """Each secret and region has its own signing key."""
    old, new = (ReadOnlyCredentials("AK", secret, None) for secret in ("old", "new"))
    now = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    signatures = [
        sign_request("GET", "a", "/b", {}, region=region, credentials=credentials, now=now)[
            "authorization"
        ]
        for credentials, region in [(old, "r"), (new, "r"), (old, "r"), (new, "q")]
    ]
    assert signatures[0] == signatures[2]
    assert len(set(signatures)) == 3
