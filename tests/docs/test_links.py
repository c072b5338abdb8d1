"""Every relative link and anchor in a Markdown page leads to a file or heading."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.markdown import Page, pages
from tests.support.serving import ROOT

README_BYTES = 8 * 1024

BROKEN = {
    "file": "[a](missing.md)",
    "anchor": "[a](other.md#no-such-heading)",
    "anchor of the page itself": "[a](#no-such-heading)",
    "anchor of a heading in a code block": "[a](other.md#comment)",
    "image": "![a](missing.svg)",
    "image of HTML": '<img src="missing.webp">',
    "reference": "[a]: missing.md",
    "folder": "[a](.)",
    "outside of the repository": "[a](../outside.md)",
    "anchor of a file that is no page": "[a](data.json#key)",
}


def test_links_and_anchors_of_all_pages_lead_somewhere() -> None:
    """Every relative link has a file, and every anchor a heading."""
    problems = [problem for page in pages() for problem in page.link_problems()]
    assert not problems
    assert sum(len(list(page.links)) for page in pages()) > 80


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a page, a file, and a page beside the folder."""
    (tmp_path / "outside.md").write_text("# Outside\n")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "other.md").write_text(
        "# Two words, `code`\n\n```sh\n# Comment\n```\n\n## Again\n\n## Again\n"
    )
    (folder / "data.json").write_text("{}")
    return folder


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_link_is_a_problem(text: str, folder: Path) -> None:
    """A link without a file, or an anchor without a heading, is a problem."""
    page = folder / "page.md"
    page.write_text(f"# Page\n\n{text}\n")
    assert len(Page(page).link_problems(folder)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md#two-words-code) [b](other.md#again-1) [c](#page) [d](data.json)",
        "[external](https://host.example/missing.md) `[code](missing.md)`",
        "```\n[code](missing.md)\n```",
    ],
)
def test_right_link_is_no_problem(text: str, folder: Path) -> None:
    """Links to files and headings, external links, and links in code are no problem."""
    page = folder / "page.md"
    page.write_text(f"# Page\n\n{text}\n")
    assert not Page(page).link_problems(folder)


def readme_problems(readme: Page) -> list[str]:
    """Return a line if the README is too long, and one for each page that it does not link to."""
    linked = {link.partition("#")[0] for link in readme.links}
    wanted = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    missing = [f"no link to {name}" for name in sorted(wanted - linked)]
    is_long = len(readme.text.encode()) > README_BYTES
    return [*missing, *(["longer than 8 KB"] if is_long else [])]


def test_readme_is_short_and_links_to_every_page(tmp_path: Path) -> None:
    """The README has at most 8 KB, and links to every page in docs/; both are noticed."""
    readme = Page(ROOT / "README.md")
    assert not readme_problems(readme)
    wrong = Page(tmp_path / "README.md")
    wrong.path.write_text(
        readme.text.replace("(docs/performance.md)", "(docs/access.md)") + "\n" * README_BYTES
    )
    assert readme_problems(wrong) == ["no link to docs/performance.md", "longer than 8 KB"]
