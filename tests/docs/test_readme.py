"""The README, the pages, the requirements and SECURITY.md agree with the code."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts import settings_table, speed
from settings import ServerSettings, SettingsError
from tests.support.components import Store
from tests.support.document import table_rows, with_table
from tests.support.markdown import Page, measured_figure, pages
from tests.support.serving import ROOT, RunningService, ServiceWith
from tools.faults.__main__ import table as faults_table
from tools.faults.faults import FAULTS, SOURCES

README = ROOT / "README.md"
DOCS = ROOT / "docs"
SETTINGS = DOCS / "settings.md"
FAULT_TABLE = DOCS / "reliability.md"
EXECUTED = [README, DOCS / "getting-started.md"]
WITH_CURL = [DOCS / f"{name}.md" for name in ("http-api", "objects", "access", "auth-url")]

# Variables that other programs define, and names that only look like variables.
OTHER_VARIABLES = {
    "AWS_CA_BUNDLE",
    "AWS_PROFILE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    "REQUESTS_CA_BUNDLE",
    "ACCOUNT_ID",
    "SO_MAX_PACING_RATE",
}

# A script in place of scripts/run: writes the environment that a block gives it into a file.
RECORD_ENVIRON = """#!/bin/sh
env -0 > "$(mktemp environ.XXXXXX)"
"""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_settings_tables_equal_the_code() -> None:
    """The tables of docs/settings.md are the output of scripts/settings_table.py."""
    made = with_table(SETTINGS, "settings", settings_table.settings_tables())
    assert made == text_of(SETTINGS)


def test_wrong_row_in_settings_tables_is_noticed(tmp_path: Path) -> None:
    """A row with another default makes another document."""
    wrong = text_of(SETTINGS).replace("| `30` |", "| `31` |")
    (tmp_path / "page.md").write_text(wrong, encoding="utf-8")
    made = with_table(tmp_path / "page.md", "settings", settings_table.settings_tables())
    assert made == text_of(SETTINGS) != wrong


def test_setting_in_no_group_or_in_two_is_an_error() -> None:
    """Each setting is in exactly one table."""
    groups = settings_table.GROUPS
    for wrong in ({**groups, "Speed": "read_ahead_bytes"}, {**groups, "More": "port"}):
        with pytest.raises(ValueError, match="the groups must have each setting once"):
            settings_table.settings_tables(wrong)


def fault_rows(document: Path) -> str:
    """Return the document with the table of faults that the test suite expects."""
    # The column of the naive service is measured by `scripts/faults --write`, not tested.
    expected = {(f, source): f.outcome_of(source) or "" for f in FAULTS for source in SOURCES}
    measured = {
        (fault, source): cell
        for fault, row in zip(FAULTS, table_rows(document, "faults"), strict=True)
        for source, cell in zip(SOURCES, row[3:], strict=True)
    }
    return with_table(document, "faults", faults_table(FAULTS, expected, measured))


def test_faults_table_equals_the_test_suite() -> None:
    """The table of faults has every fault with its tested outcome."""
    assert fault_rows(FAULT_TABLE) == text_of(FAULT_TABLE)


def test_wrong_outcome_in_faults_table_is_noticed(tmp_path: Path) -> None:
    """A cell with another outcome makes another document."""
    wrong = text_of(FAULT_TABLE).replace("| never answers | 504 |", "| never answers | 502 |")
    (tmp_path / "page.md").write_text(wrong, encoding="utf-8")
    assert fault_rows(tmp_path / "page.md") == text_of(FAULT_TABLE) != wrong


def test_generated_tables_are_all_tested() -> None:
    """Every generated table in a page has a test."""
    marks = [mark for page in pages() for mark in re.findall(r"<!-- (\w+): begin -->", page.text)]
    # The test of `vector` is in tests/unit/test_signed_urls_page.py, that of `hosts` in
    # tests/process/test_hosts.py, those of the others in test_observability_page.py.
    others = ["fields", "hosts", "metrics", "outcomes", "outcomes", "vector"]
    here = ["faults", "settings", "speed", "speed", "tls", "workers"]
    assert sorted(marks) == sorted([*here, *others])


def test_speed_tables_and_chart_have_the_figures_of_the_results() -> None:
    """The chart and the tables of speed are the output of scripts/speed.py."""
    results = text_of(speed.RESULTS)
    assert speed.speed_chart(results) == text_of(speed.CHART)
    for page, name, table in speed.tables(results):
        assert with_table(page, name, table) == text_of(page)


def test_other_figure_makes_other_tables_and_chart() -> None:
    """A figure of another run shows."""
    results = text_of(speed.RESULTS)
    figure = measured_figure(results, *speed.PANELS[0], speed.COLUMNS["downspout"])
    other = results.replace(f"| {figure} |", f"| {figure}1 |")
    assert speed.speed_chart(other) != speed.speed_chart(results)
    assert [table for *_, table in speed.tables(other)] != [
        table for *_, table in speed.tables(results)
    ]


def unknown_variables(text: str) -> set[str]:
    """Return the names in a page that look like variables, but are none."""
    names = re.findall(r"(?<![\w{])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w}])", text)
    settings = {name for one in settings_table.documented_settings() for name in one.names}
    return {*names} - settings - OTHER_VARIABLES


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path.stem)
def test_variables_in_pages_exist(page: Page) -> None:
    """Each variable that a page names is a setting, or one of AWS, of a proxy or of a trace."""
    assert not unknown_variables(page.text)
    wrong = f"{page.text}\nSet `MAX_DOWNLOAD=3`, {{TASK_ID}} and `MAX_DOWNLOADS`.\n"
    assert unknown_variables(wrong) == {"MAX_DOWNLOAD"}


@pytest.fixture
def demo(store: Store, httpbin_url: str, service_with: ServiceWith) -> RunningService:
    """Run the service with the objects and settings of the demo, in a bucket of its own."""
    bytes_url = httpbin_url + "/stream-bytes/{size}"
    program = runpy.run_path(str(ROOT / "scripts/demo/__main__.py"))
    bucket = program["BUCKET"]
    store.client.create_bucket(Bucket=bucket)
    for key, path in program["OBJECTS"].items():
        body = (ROOT / "scripts" / "demo" / path).read_bytes()
        store.client.put_object(Bucket=bucket, Key=key, Body=body)
    return service_with(
        store.url, bytes_url=bytes_url, s3_image_bucket=bucket, s3_objects=("public/",)
    )


def run_block(block: str, url: str, folder: Path) -> str | None:
    """Run a shell block with the service at `url`; return its error, or None.

    An invalid setting in the environment of scripts/run is an error too.
    """
    scripts = folder / "scripts"
    scripts.mkdir(exist_ok=True)
    (scripts / "run").write_text(RECORD_ENVIRON)
    (scripts / "test").write_text("#!/bin/sh\n")
    for script in scripts.iterdir():
        script.chmod(0o755)
    block = block.replace("http://127.0.0.1:8000", url)
    command = ["bash", "-euo", "pipefail", "-c", block]
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}
    ended = subprocess.run(
        command, cwd=folder, env=environ, check=False, capture_output=True, text=True
    )
    if ended.returncode:
        return ended.stderr or f"the exit code is {ended.returncode}"
    for file in folder.glob("environ.*"):
        lines = file.read_text(encoding="utf-8").rstrip("\0").split("\0")
        file.unlink()
        given = dict(line.split("=", 1) for line in lines)
        try:
            ServerSettings.from_environ({"S3_IMAGE_BUCKET": "demo", **given})
        except SettingsError as error:
            return str(error)
    return None


@pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)
def test_shell_blocks_succeed(path: Path, demo: RunningService, tmp_path: Path) -> None:
    """Every shell block runs; the settings that it gives to scripts/run are valid."""
    blocks = Page(path).blocks("sh")
    assert len(blocks) >= 4
    for block in blocks:
        error = run_block(block, demo.url, tmp_path)
        assert error is None, (block, error)


@pytest.mark.parametrize(
    "block",
    [
        "curl -fS http://127.0.0.1:8000/tasks/2/image",
        "curl -fS http://127.0.0.1:8000/tasks/2/image | cat",
        "MAX_DOWNLOADS=many ./scripts/run",
        "./scripts/start",
    ],
)
def test_wrong_shell_block_is_noticed(block: str, demo: RunningService, tmp_path: Path) -> None:
    """A missing object, a wrong setting and a missing script make a block fail."""
    assert run_block(block, demo.url, tmp_path) is not None


@pytest.mark.parametrize("path", WITH_CURL, ids=lambda path: path.stem)
def test_curl_commands_succeed(path: Path, demo: RunningService, tmp_path: Path) -> None:
    """Every curl command for the demo succeeds."""
    lines = re.findall(r"^(?:\$ )?(curl .*127\.0\.0\.1.*)$", text_of(path), re.MULTILINE)
    assert lines
    for line in lines:
        error = run_block(f"ACCESS_TOKENS=0123456789abcdef; {line}", demo.url, tmp_path)
        assert error is None, (line, error)


@pytest.mark.parametrize("path", [README, DOCS / "embedding.md"], ids=lambda path: path.stem)
def test_first_python_block_runs(path: Path, installed: Path) -> None:
    """The first Python block runs with the installed package."""
    block = Page(path).blocks("python")[0]
    assert "app.mount(" in block
    environ = {"PYTHONPATH": str(installed), "AWS_EC2_METADATA_DISABLED": "true"}
    subprocess.run([sys.executable, "-c", block], env=environ, check=True, capture_output=True)


def test_scripts_in_the_pages_are_executable() -> None:
    """Every script that a page names exists and is executable."""
    text = "".join(page.text for page in pages())
    for name in set(re.findall(r"(?<=\W)scripts/(\w+)\b(?![./])", text)) - {"demo"}:
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111, name


def test_procfile_listens_on_all_interfaces_and_pins_are_exact() -> None:
    """The Procfile has HOST=0.0.0.0, and requirements.txt has exact versions."""
    assert (ROOT / "Procfile").read_text() == "web: env HOST=0.0.0.0 python service.py\n"
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert line.startswith("#") or re.match(r"^[a-z0-9-]+==[0-9a-z.]+( ;.*)?$", line), line


def test_requirements_have_every_declared_dependency() -> None:
    """requirements.txt has each dependency that pyproject.toml declares."""
    declaring = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = declaring["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["server"]
    declared += declaring["dependency-groups"]["service"]
    names = {re.split(r"[<>=]", one)[0] for one in declared}
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().split("\n")}
    assert names <= pinned


def test_security_md_names_only_existing_tests() -> None:
    """Each test that SECURITY.md names exists."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in text.splitlines() if "`test_" in row]
    assert len(rows) > 20
    for row in rows:
        for group in row[3].split(";"):
            for module, names in re.findall(r"`(test_\w+)`(?:: ([^;]*))?", group):
                paths = list((ROOT / "tests").rglob(f"{module}.py"))
                assert paths, module
                code = "".join(path.read_text(encoding="utf-8") for path in paths)
                for name in re.findall(r"`(\w+)`", names):
                    if not name.startswith("test_"):
                        assert f"def test_{name}(" in code, (module, name)
