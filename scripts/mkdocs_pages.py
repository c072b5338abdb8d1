"""Gives MkDocs the pages and the files that they link to, at their paths in the repository.

MkDocs reads one folder only. With the repository's own paths, the same relative links lead to the
same files on a code host and on the site.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

FOLDERS = (".", "docs", "examples", "deploy", "tools/benchmarks")
PAGES_AND_IMAGES = {".md", ".svg", ".webp"}
FOLDERS_WITH_FILES = {"examples", "deploy"}
NO_PAGES = {"tools/benchmarks/PROFILE.md"}


def on_files(files: Any, *, config: Any) -> Any:
    """Return the files of the site: the theme's, and ours in place of those in `docs_dir`."""
    from mkdocs.structure.files import File, Files  # noqa: PLC0415 - only MkDocs calls this

    ours = [
        File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).iterdir())
        if path.is_file() and is_wanted(path)
    ]
    return Files([*(one for one in files if one.src_dir != config["docs_dir"]), *ours])


def is_wanted(path: Path) -> bool:
    """Return whether the site has this file."""
    name = path.relative_to(ROOT)
    is_linked = name.parent.as_posix() in FOLDERS_WITH_FILES
    is_page = path.suffix in PAGES_AND_IMAGES and name.as_posix() not in NO_PAGES
    return is_page or is_linked
