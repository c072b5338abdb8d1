"""The README, the requirements and SECURITY.md agree with the code."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import tomllib
from pathlib import Path

from scripts.settings_table import settings_table
from tests.support.components import Store
from tests.support.document import table_rows, with_table
from tests.support.serving import ROOT, ServiceWith
from tools.faults.__main__ import table as faults_table
from tools.faults.faults import FAULTS, SOURCES

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_settings_table_equals_the_code() -> None:
    """The README's settings table is the output of scripts/settings_table.py."""
    assert with_table(ROOT / "README.md", "settings", settings_table()) == README


def test_faults_table_equals_the_test_suite() -> None:
    """The README's faults table has every fault with its tested outcome."""
    # The column of the naive service is measured by `scripts/faults --write`, not tested.
    document = ROOT / "README.md"
    expected = {(f, source): f.outcome_of(source) or "" for f in FAULTS for source in SOURCES}
    measured = {
        (fault, source): cell
        for fault, row in zip(FAULTS, table_rows(document, "faults"), strict=True)
        for source, cell in zip(SOURCES, row[3:], strict=True)
    }
    assert with_table(document, "faults", faults_table(FAULTS, expected, measured)) == README


def test_generated_tables_are_all_tested() -> None:
    """Every generated table in a document has a test."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md")]
    text = "".join(path.read_text(encoding="utf-8") for path in documents)
    assert sorted(re.findall(r"<!-- (\w+): begin -->", text)) == ["faults", "hosts", "settings"]


def test_readme_curl_commands_succeed(
    store: Store, httpbin_url: str, service_with: ServiceWith, tmp_path: Path
) -> None:
    """Every curl command in the README succeeds."""
    bytes_url = httpbin_url + "/stream-bytes/{size}"
    service = service_with(store.url, bytes_url=bytes_url, s3_objects=("public/",))
    demo = ROOT / "scripts" / "demo"
    for key, path in runpy.run_path(str(demo / "__main__.py"))["OBJECTS"].items():
        store.put(key, (demo / path).read_bytes())
    lines = re.findall(r"^(?:\$ )?(curl .*)$", README, re.MULTILINE)
    assert len(lines) == 10
    for line in lines:
        command = line.replace("http://127.0.0.1:8000", service.url)
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)


def test_readme_scripts_are_executable() -> None:
    """Every script that the README names exists and is executable."""
    for name in set(re.findall(r"(?<=\W)scripts/(\w+)\b(?![./])", README)) - {"demo"}:
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
