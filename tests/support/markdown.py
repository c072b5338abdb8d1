"""Reads Markdown pages: their links, anchors, shell blocks and table cells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from tests.support.document import rows_between
from tests.support.serving import ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)|(?:src|srcset|href)=\"([^\"]+)\"")
_REFERENCE = re.compile(r"^\[[^\]]+\]: +(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+?)#*$", re.MULTILINE)
_EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|//")


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def links(self) -> Iterator[str]:
        """Yield the relative links of this page, of images too, outside of code."""
        prose = _CODE.sub("", _FENCE.sub("", self.text))
        found = [one or other for one, other in _LINK.findall(prose)]
        for link in found + _REFERENCE.findall(prose):
            if not _EXTERNAL.match(link):
                yield link

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors of the headings, as GitHub makes them."""
        anchors: set[str] = set()
        for heading in _HEADING.findall(_FENCE.sub("", self.text)):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip()
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            number = sum(
                one == slug or re.fullmatch(rf"{slug}-\d+", one) is not None for one in anchors
            )
            anchors.add(f"{slug}-{number}" if number else slug)
        return anchors

    def blocks(self, language: str) -> list[str]:
        """Return the code blocks of this language."""
        return [text for name, text in _FENCE.findall(self.text) if name == language]

    def link_problems(self, root: Path = ROOT) -> list[str]:
        """Return a line for each relative link that leads nowhere, or outside of `root`."""
        return [f"{self.path.name}: {link}" for link in self.links if not self._leads(link, root)]

    def _leads(self, link: str, root: Path) -> bool:
        path, _, anchor = unquote(link).partition("#")
        target = (self.path.parent / path).resolve() if path else self.path.resolve()
        if not target.is_relative_to(root.resolve()) or not target.is_file():
            return False
        return not anchor or (target.suffix == ".md" and anchor in Page(target).anchors)


def pages() -> list[Page]:
    """Return every Markdown page of the repository."""
    folders = (ROOT, ROOT / "docs", ROOT / "examples", *(ROOT / "tools").iterdir())
    return [Page(path) for folder in folders for path in sorted(folder.glob("*.md"))]


def first_cells(text: str, name: str) -> list[str]:
    """Return the code in the first cells of the table with that name, without backticks."""
    return [row[0].strip("`") for row in rows_between(text, name)]


def table_below(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without the table's own heading."""
    section = re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], flags=re.MULTILINE)[0]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = table[0].splitlines()[2:] if table else []
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def measured_figure(results: str, case: str, unit: str, peer: str) -> str:
    """Return a figure out of the text of tools/benchmarks/RESULTS.md; "" if there is none."""
    heading = results.partition(f"\n## {case}\n")[2].partition("| peer |")[2].partition("\n")[0]
    column = [cell.strip() for cell in heading.split("|")].index(unit)
    rows = [row for row in table_below(results, case) if row[0] == peer]
    return rows[0][column + 1] if rows else ""
