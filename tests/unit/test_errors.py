"""The attributes that every error class has."""

from __future__ import annotations

import logging

from handlers.errors import AccessDenied, DownloadError, NotStarted


def subclasses(base: type[DownloadError]) -> set[type[DownloadError]]:
    below = set(base.__subclasses__())
    return below.union(*(subclasses(one) for one in below))


def test_error_class_has_every_attribute() -> None:
    """Each error class has a status, a type, a title and a detail."""
    errors = subclasses(DownloadError)
    assert len(errors) >= 8
    for error in errors:
        assert 400 <= error.status < 600
        assert error.kind == error.kind.lower().replace(" ", "-")
        assert error.title
        assert error.detail.endswith((".", "yield"))
        assert error.retryable == (error.status in (429, 503, 504) and error.kind != "not-started")


def test_error_log_level_follows_the_status() -> None:
    """A 4xx logs at info and a 5xx at warning, with two exceptions."""
    louder = {AccessDenied: logging.WARNING, NotStarted: logging.ERROR}
    for error in subclasses(DownloadError):
        usual = logging.INFO if error.status < 500 else logging.WARNING
        assert error.log_level == louder.get(error, usual), error
