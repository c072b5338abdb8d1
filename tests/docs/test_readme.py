"""The README says what is true."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from scripts.settings_table import settings_table
from tests.support.components import Store
from tests.support.document import table_rows, with_table
from tests.support.serving import ROOT, RunningService
from tools.faults.__main__ import table as faults_table
from tools.faults.faults import FAULTS, SOURCES

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_of_settings_is_that_of_the_code() -> None:
    """The README's table is the one that settings.py makes (scripts/settings_table.py)."""
    assert with_table(ROOT / "README.md", "settings", settings_table()) == README


def test_table_of_faults_is_that_of_the_suite() -> None:
    """The README's table has every fault of the suite, with the outcome that is tested for.

    What the naive service makes of a fault is measured (`scripts/faults --write`) and not tested.
    """
    document = ROOT / "README.md"
    expected = {(f, source): f.outcome_of(source) or "" for f in FAULTS for source in SOURCES}
    measured = {
        (fault, source): cell
        for fault, row in zip(FAULTS, table_rows(document, "faults"), strict=True)
        for source, cell in zip(SOURCES, row[3:], strict=True)
    }
    assert with_table(document, "faults", faults_table(FAULTS, expected, measured)) == README


def test_every_generated_table_is_compared() -> None:
    """A table between marks is made by a script, and a test makes it as well and compares."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md")]
    text = "".join(path.read_text(encoding="utf-8") for path in documents)
    assert sorted(re.findall(r"<!-- (\w+): begin -->", text)) == ["faults", "hosts", "settings"]


def test_its_curl_lines_work(store: Store, service: RunningService, tmp_path: Path) -> None:
    """Every command for a running service succeeds as it stands there."""
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    lines = re.findall(r"^(?:\$ )?(curl .*)$", README, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        command = line.replace("http://127.0.0.1:8000", service.url)
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)


def test_its_scripts_exist() -> None:
    """Every script that it names is there and can be run."""
    for name in set(re.findall(r"(?<=\W)scripts/(\w+)\b(?![./])", README)) - {"demo"}:
        assert (ROOT / "scripts" / name).stat().st_mode & 0o111, name


def test_procfile_opens_the_service_and_pins_are_exact() -> None:
    """The Procfile listens on every address; requirements.txt is pinned to the last number."""
    assert (ROOT / "Procfile").read_text() == "web: env HOST=0.0.0.0 python service.py\n"
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert line.startswith("#") or re.match(r"^[a-z0-9-]+==[0-9a-z.]+( ;.*)?$", line), line


def test_requirements_hold_what_the_package_declares() -> None:
    """What the service needs is declared once, in pyproject.toml, and pinned from there."""
    declaring = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = declaring["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["server"]
    declared += declaring["dependency-groups"]["service"]
    names = {re.split(r"[<>=]", one)[0] for one in declared}
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().split("\n")}
    assert names <= pinned


def test_every_threat_has_a_test_that_exists() -> None:
    """SECURITY.md names tests by their module and name."""
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
