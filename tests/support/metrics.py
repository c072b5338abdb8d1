"""The text of /metrics: its samples, and an example in which everything has been counted."""

from prometheus_client.parser import text_string_to_metric_families

from .client import fetch
from .components import settings_for
from .misbehaving import Exchange, Misbehaving
from .serving import serving


def metrics_after_trouble(upstream: Misbehaving) -> str:
    """Return the text of /metrics after one download, which was retried, broke and was resumed."""

    async def stumbling(exchange: Exchange) -> None:
        lines = ['etag: "v"', "accept-ranges: bytes"]
        if len(upstream.exchanges) == 1:
            await exchange.error(503, "SlowDown")
        elif "range" in exchange.headers:
            await exchange.head(206, "content-length: 2", "content-range: bytes 3-4/5", *lines)
            await exchange.body(b"45")
        else:
            await exchange.head(200, "content-length: 5", *lines)
            await exchange.body(b"123")

    upstream.forget()
    upstream.behaviour = stumbling
    with serving(settings_for(upstream.url)) as service:
        assert fetch(service.port, "/tasks/1/image").body == b"12345"
        return service.get("/metrics").text


def parse_samples(text: str) -> dict[str, float]:
    """Return the samples by their names and label values; raise if the text is invalid."""
    return {
        " ".join(
            [sample.name, *(value for _, value in sorted(sample.labels.items()))]
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
