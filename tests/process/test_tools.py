"""The command-line programs in tools/: their help, and one small run of each."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.client import fetch
from tests.support.serving import ROOT
from tools.benchmarks.cases import CASES
from tools.benchmarks.lab import Lab
from tools.benchmarks.peer import DIRECT, DOWNSPOUT
from tools.benchmarks.report import report
from tools.benchmarks.rounds import measure
from tools.benchmarks.scale import ARTICLE, HUGE, KIB, LARGE, MEDIUM, SMALL, Scale
from tools.load.download import Download
from tools.load.objects import Version, task_of
from tools.load.processes import running_store

SIZE = 300_000
TASK = task_of(1, SIZE)
OBJECT = f"/photos/test/{TASK}/image.jpg"


def run(*arguments: str) -> str:
    """Run a module of tools and return its output."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    ).stdout


@pytest.mark.parametrize(
    ("module", "script"),
    [
        ("tools.load", "scripts/load"),
        ("tools.faults", "scripts/faults"),
        ("tools.hosts", "scripts/hosts"),
        ("tools.browser", "scripts/look"),
        ("tools.benchmarks", "scripts/bench"),
    ],
)
def test_help_option_prints_script_and_options(module: str, script: str) -> None:
    """`--help` prints the usage of the script without optional packages."""
    text = run(module, "--help")
    assert text.startswith(f"usage: {script} ")
    assert "options:" in text
    assert (ROOT / script).stat().st_mode & 0o111


def test_faults_with_only_prints_one_row() -> None:
    """`--only` prints the row of one fault."""
    printed = run("tools.faults", "--no-naive", "--only", "404 NoSuchBucket")
    *_, row = printed.splitlines()
    assert row == "| 404 NoSuchBucket | 502 |  |"
    assert len(printed.splitlines()) == 3


def test_load_store_serves_the_expected_bytes() -> None:
    """The load test's store serves the full object and a range of it."""
    version = Version(TASK, 1)
    with running_store() as store:
        whole = fetch(store.port, OBJECT)
        part = fetch(store.port, OBJECT, headers={"range": "bytes=100-199"})
        stats = store.stats()
    assert (whole.status, whole.body) == (200, b"".join(version.pages(0, SIZE)))
    assert (part.status, part.body) == (206, whole.body[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{SIZE}"
    assert stats == {"written": [SIZE, 100], "open": []}


@pytest.mark.parametrize(("options", "verdict"), [((), "whole"), (("--cut", "1"), "broken")])
def test_load_client_detects_a_cut_body(options: tuple[str, ...], verdict: str) -> None:
    """The load test's client detects a body that the store cuts."""
    with running_store(*options) as store:
        download = Download(store.port, OBJECT)
        asyncio.run(download.run())
    assert download.status == 200
    assert download.verdict() == verdict


@pytest.mark.parametrize("name", ["capped-0", "capped-0-tls"])
def test_benchmark_case_is_measured_and_reported(tmp_path: Path, name: str) -> None:
    """One small benchmark case reports the speeds of the origin and of the service."""
    scale = Scale(
        rounds=1,
        sizes=dict.fromkeys((SMALL, MEDIUM, LARGE, HUGE, ARTICLE), 64 * KIB),
        crowd=1,
        readers=1,
        requests=1,
        seconds=0.1,
        volume=128 * KIB,
        settled=0.1,
    )
    [case] = [case for case in CASES if case.name == name]
    with Lab(tmp_path, scale) as lab:
        results = measure(case, [DIRECT, DOWNSPOUT], lab, scale, rounds=1)
    assert results.failures == []
    text = report({case.name: results}, scale, rounds=1, lines=[])
    rows = [line.split(" | ") for line in text.splitlines()]
    speeds = {
        row[0]: float(row[-3]) for row in rows if row[0] in ("| direct", f"| **{DOWNSPOUT}**")
    }
    assert len(speeds) == 2
    assert min(speeds.values()) > 0
