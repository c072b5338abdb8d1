"""Metrics for Prometheus."""

from __future__ import annotations

import re

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.client import fetch
from tests.support.components import Store, settings_for
from tests.support.metrics import parse_samples
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceProcess, http_get, serving, wait_until

IMAGE, BYTES = "/tasks/{task_id}/image", "/tasks/{task_id}/bytes/{size}"


def get_samples(service: RunningService) -> dict[str, float]:
    answer = service.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return parse_samples(answer.text)


def test_downloads_are_counted_by_route_and_outcome(upstream: Misbehaving) -> None:
    """Outcomes, sent bytes and first-byte times are counted for each route."""

    async def five(exchange: Exchange) -> None:
        await exchange.answer(200, b"12345")

    upstream.behaviour = five
    with serving(settings_for(upstream.url)) as service:
        for path in ("/tasks/1/image", "/tasks/1/image", "/tasks/1/bytes/5"):
            fetch(service.port, path)
        found = get_samples(service)
    assert found[f"downspout_downloads_total complete {IMAGE}"] == 2
    assert found[f"downspout_downloads_total complete {BYTES}"] == 1
    assert found[f"downspout_sent_bytes_total {IMAGE}"] == 10
    assert found[f"downspout_first_byte_seconds_count {BYTES}"] == 1
    assert found["downspout_downloads_running"] == 0


def test_upstream_errors_and_resumes_are_counted(metrics_text: str) -> None:
    """An error counts even if a retry or a resume hides it from the client."""
    found = parse_samples(metrics_text)
    assert found["downspout_upstream_errors_total upstream_busy s3"] == 1
    assert found["downspout_upstream_errors_total truncated s3"] == 1
    assert found[f"downspout_resumes_total {IMAGE}"] == 1
    assert found[f"downspout_downloads_total resumed {IMAGE}"] == 1


def test_missing_object_is_not_counted_as_upstream_error(upstream: Misbehaving) -> None:
    """AccessDenied counts: the service's credentials may have lost a permission."""

    async def missing_then_denied(exchange: Exchange) -> None:
        if len(upstream.exchanges) == 1:
            await exchange.error(404, "NoSuchKey")
        else:
            await exchange.error(403, "AccessDenied")

    upstream.behaviour = missing_then_denied
    with serving(settings_for(upstream.url)) as service:
        for _ in range(2):
            assert fetch(service.port, "/tasks/1/image").status == 404
        found = get_samples(service)
    errors = {name: count for name, count in found.items() if "upstream_errors_total" in name}
    assert errors == {"downspout_upstream_errors_total not_found s3": 1}


def test_silent_store_is_counted_as_error_and_failed_download(upstream: Misbehaving) -> None:
    """A store timeout is an upstream error, and its 504 is no complete download."""
    upstream.behaviour = Exchange.hang
    with serving(settings_for(upstream.url, first_byte_timeout=0.5)) as service:
        assert fetch(service.port, "/tasks/1/image").status == 504
        found = get_samples(service)
    assert found["downspout_upstream_errors_total upstream_timeout s3"] == 1
    assert found[f"downspout_downloads_total failed {IMAGE}"] == 1


def test_running_download_and_its_bytes_are_counted(upstream: Misbehaving) -> None:
    """A long download counts while it runs, not only at its end."""

    async def half(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 100000")
        await exchange.body(bytes(50_000))
        await exchange.hang()

    upstream.behaviour = half
    with serving(settings_for(upstream.url)) as service:
        with httpx.stream("GET", service.url + "/tasks/1/image", trust_env=False, verify=False):
            wait_until(lambda: get_samples(service).get(f"downspout_sent_bytes_total {IMAGE}"))
            found = get_samples(service)
        assert found[f"downspout_sent_bytes_total {IMAGE}"] == 50_000
        assert found["downspout_downloads_running"] == 1
        wait_until(lambda: get_samples(service)["downspout_downloads_running"] == 0)


def test_two_applications_in_one_process_have_separate_metrics(upstream: Misbehaving) -> None:
    """Two applications in one host do not count each other's downloads."""
    with serving(settings_for(upstream.url)) as one, serving(settings_for(upstream.url)) as other:
        assert fetch(one.port, "/tasks/1/image").status == 404
        assert get_samples(one)[f"downspout_downloads_total refused {IMAGE}"] == 1
        assert f"downspout_downloads_total refused {IMAGE}" not in get_samples(other)


def test_metrics_of_several_workers_are_summed(store: Store) -> None:
    """Every worker returns the sum over all workers."""
    store.put("test/1/image.jpg", b"12345")
    with ServiceProcess({**store.environ, "WEB_CONCURRENCY": "2"}) as process:
        url = process.url()
        wait_until(lambda: sum("Application startup complete" in x for x in process.lines) == 2)
        for _ in range(20):
            assert http_get(f"{url}/tasks/1/image").content == b"12345"

        def samples() -> dict[str, float]:
            return parse_samples(http_get(f"{url}/metrics").text)

        # The worker of the last download counts its end after its client has the last byte.
        wait_until(lambda: samples()["downspout_downloads_running"] == 0)
        for _ in range(10):
            found = samples()
            assert found[f"downspout_downloads_total complete {IMAGE}"] == 20
            assert found["downspout_downloads_running"] == 0
        assert process.stop() == 0


def parse_families(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


def test_metrics_text_follows_promtool_rules(metrics_text: str) -> None:
    """Names, help, types and units are as `promtool check metrics` requires."""
    families = parse_families(metrics_text)
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert metrics_text.count(f"# HELP {name} ") == 1
        assert metrics_text.count(f"# TYPE {name} ") == 1
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        assert not re.search(r"_(total|count|sum|bucket|info)$", family.name)
        assert not re.search(r"(milli|micro|kilo|mega|minute|hour|percent)", family.name)
        assert not set(family.name.split("_")) & {"counter", "gauge", "histogram", "metric"}
    assert metrics_text.endswith("\n")


def test_samples_match_type_of_their_family(metrics_text: str) -> None:
    """Each sample is unique, and its name, labels and value fit its type."""
    suffixes = {"counter": {"_total"}, "gauge": {""}, "histogram": {"_bucket", "_count", "_sum"}}
    samples = [
        (family, sample) for family in parse_families(metrics_text) for sample in family.samples
    ]
    assert len({(sample.name, *sorted(sample.labels.items())) for _, sample in samples}) == len(
        samples
    )
    for family, sample in samples:
        assert sample.name.removeprefix(family.name) in suffixes[family.type]
        assert sample.value >= 0
        own = set(sample.labels) - ({"le"} if sample.name.endswith("_bucket") else set())
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in own)
        assert not own & {"le", "quantile", "job", "instance"}


def test_histogram_buckets_are_cumulative(metrics_text: str) -> None:
    """Each bucket includes the smaller ones, and +Inf includes all samples."""
    [family] = [one for one in parse_families(metrics_text) if one.type == "histogram"]
    bounds = [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]
    counts = [s.value for s in family.samples if s.name.endswith("_bucket")]
    [total] = [s.value for s in family.samples if s.name.endswith("_count")]
    assert bounds == sorted(set(bounds))
    assert bounds[-1] == float("inf")
    assert counts == sorted(counts)
    assert counts[-1] == total == 1
