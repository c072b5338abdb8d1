"""What a good store answers to a request for an object: the rules that all fake stores share."""

from collections.abc import Mapping
from dataclasses import dataclass

DATE = "Mon, 23 Nov 2026 08:00:00 GMT"


@dataclass(frozen=True)
class Selection:
    """The status of an answer, and the bytes of its body: from `first` to before `end`."""

    status: int
    size: int
    first: int
    end: int

    @property
    def content_range(self) -> list[str]:
        """The header line Content-Range, where the answer has one."""
        if self.status == 206:
            return [f"content-range: bytes {self.first}-{self.end - 1}/{self.size}"]
        return [f"content-range: bytes */{self.size}"] if self.status == 416 else []


def select(headers: Mapping[str, str], size: int, etag: str, date: str = DATE) -> Selection:
    """Answer If-Match, If-Range and one range as S3 does, for an object of `size` bytes."""
    if headers.get("if-match", etag) != etag:
        return Selection(412, size, 0, 0)
    if "range" not in headers or headers.get("if-range", etag) not in (etag, date):
        return Selection(200, size, 0, size)
    first, _, last = headers["range"].removeprefix("bytes=").partition("-")
    if not first:
        return Selection(206, size, max(size - int(last), 0), size)
    if int(first) >= size:
        return Selection(416, size, 0, 0)
    return Selection(206, size, int(first), min(int(last or size) + 1, size))
