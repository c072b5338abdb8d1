"""`mkdocs build --strict` makes a site of the pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT, UNMEASURED

COPIED = [
    "mkdocs.yml",
    "scripts/mkdocs_pages.py",
    "docs",
    "examples",
    "deploy",
    "tools/benchmarks",
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the files that the site is made of."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for path in [*(ROOT / name for name in COPIED), *ROOT.glob("*.md")]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=ignored)
        else:
            shutil.copy(path, target)
    return tmp_path


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a folder, with every warning as an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", "site"]
    environ = {**os.environ, **UNMEASURED}
    return subprocess.run(
        command, cwd=folder, env=environ, check=False, capture_output=True, text=True
    )


def test_site_has_every_page_and_no_warning(copy: Path) -> None:
    """The site builds without a warning, and has every page."""
    built = build(copy)
    assert built.returncode == 0, built.stderr
    for path in (ROOT / "docs").glob("*.md"):
        assert (copy / "site" / "docs" / path.stem / "index.html").is_file()
    index = (copy / "site" / "index.html").read_text(encoding="utf-8")
    assert 'href="docs/getting-started/"' in index
    for name in ("docs/landing-light.webp", "css/base.css", "search/search_index.json"):
        assert (copy / "site" / name).is_file()


@pytest.mark.parametrize("link", ["missing.md", "settings.md#missing"])
def test_broken_link_stops_the_build(link: str, copy: Path) -> None:
    """A link that leads nowhere is a warning, and a warning stops the build."""
    (copy / "docs" / "objects.md").write_text(f"# Objects\n\n[a]({link})\n", encoding="utf-8")
    assert build(copy).returncode == 1


def test_page_outside_of_the_navigation_stops_the_build(copy: Path) -> None:
    """A page that mkdocs.yml does not list is a warning, and a warning stops the build."""
    (copy / "docs" / "unlisted.md").write_text("# Unlisted\n", encoding="utf-8")
    assert build(copy).returncode == 1
