"""HTTP dates (RFC 9110, section 5.6.7)."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# IMF-fixdate and the two obsolete forms; email.utils would also accept "1 Jan 26 00:00 EST".
_TIME = "([0-9]{2}):([0-9]{2}):([0-9]{2})"
_HTTP_DATE = re.compile(
    rf"[A-Z][a-z]{{2}}, ([0-9]{{2}}) ([A-Z][a-z]{{2}}) ([0-9]{{4}}) {_TIME} GMT"
)
_OBSOLETE_DATE = re.compile(
    rf"[A-Z][a-z]+day, [0-9]{{2}}-[A-Z][a-z]{{2}}-[0-9]{{2}} {_TIME} GMT"
    rf"|[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} [ 0-9][0-9] {_TIME} [0-9]{{4}}"
)
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}


def http_date(text: str) -> datetime | None:
    """Parse an HTTP-date; return None if `text` is not one."""
    found = _HTTP_DATE.fullmatch(text)
    if found is None and not _OBSOLETE_DATE.fullmatch(text):
        return None
    try:
        if found is None:
            return parsedate_to_datetime(text).replace(tzinfo=UTC)
        # A response usually has two dates, and email.utils takes several times as long as this.
        day, month, year, hour, minute, second = found.groups()
        return datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except (ValueError, TypeError, KeyError):
        return None
