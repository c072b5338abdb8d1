"""docs/signed-urls.md: its code in each language makes the signatures of its test vector."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from handlers.access.signed_url import make_signature, rejection_reason
from tests.support.document import table_rows
from tests.support.serving import ROOT

PAGE = ROOT / "docs" / "signed-urls.md"
TEXT = PAGE.read_text(encoding="utf-8")

KEY = "2026a:0123456789abcdef0123456789abcdef"
KEY_ID, SECRET = KEY.split(":")
EXPIRES = 4_000_000_000


class Case(NamedTuple):
    """The arguments of the page's functions; `download` and `prefix` are empty if not given."""

    path: str
    download: str = ""
    prefix: str = ""

    def arguments(self) -> list[str]:
        """Return the arguments as the programs below expect them."""
        return [self.path, KEY, str(EXPIRES), self.download, self.prefix]


def read_vector() -> list[tuple[Case, str]]:
    """Return the rows of the page's test vector: the arguments and the signature."""
    vector = []
    for row in table_rows(PAGE, "vector"):
        path, download, signed, signature = (cell.strip("`") for cell in row)
        kind, _, prefix = signed.partition(" `")
        assert kind == ("prefix" if prefix else "path")
        vector.append((Case(path, download, prefix), signature))
    return vector


VECTOR = read_vector()

# Characters that the languages' own functions encode in different ways.
ODD_CASES = [
    Case("/objects/" + "".join(map(chr, range(0x20, 0x7F)))),
    Case("/objects/a//b+c/%2F/~/😀", " 'a'/\"b\"\\%41*(!)\n~ü😀 "),
    Case("/objects/100% *(ü)/7/a b.m3u8", prefix="/objects/100% *(ü)/7/"),
    Case("/objects/100% *(ü)/7/a b.m3u8", prefix="/objects/100% *(ü)/"),
    Case("/objects/a/b/", prefix="/objects/a/b/"),
    Case("/objects/a.ts", prefix="/objects/"),
    Case("/objects/a/b.ts", "ü.ts", prefix="/objects/a/"),
    Case("/tasks/12/bytes/100", "-n"),
]


def code_block(language: str) -> str:
    """Return the page's code in a language, from the section "Code"."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```$", TEXT.split("\n## Code\n")[1], re.MULTILINE | re.DOTALL
    )
    assert len(found) == 1, language
    return str(found[0])


# Each program takes the five arguments of as many cases as there are, and prints a line for each.

PYTHON = """
import sys
given = sys.argv[1:]
while given:
    path, key, expires, download, prefix, *given = given
    print(sign(path, key, int(expires), download or None, prefix or None))
"""

JAVASCRIPT = """
for (let given = process.argv.slice(2); given.length; given = given.slice(5)) {
  const [path, key, expires, download, prefix] = given;
  console.log(sign(path, key, Number(expires), download || null, prefix || null));
}
"""

GO = """package main
import ("fmt"; "os"; "strconv")
func main() {
    for given := os.Args[1:]; len(given) > 0; given = given[5:] {
        expires, _ := strconv.ParseInt(given[2], 10, 64)
        fmt.Println(sign(given[0], given[1], expires, given[3], given[4]))
    }
}
"""

SHELL = """
while [ $# -gt 0 ]; do sign "$1" "$2" "$3" "$4" "$5"; shift 5; done
"""


def python(folder: Path) -> list[str]:
    (folder / "sign.py").write_text(code_block("python") + PYTHON, encoding="utf-8")
    return [sys.executable, "sign.py"]


def javascript(folder: Path) -> list[str]:
    (folder / "sign.js").write_text(code_block("js") + JAVASCRIPT, encoding="utf-8")
    return [program("node"), "sign.js"]


def go(folder: Path) -> list[str]:
    (folder / "sign.go").write_text(code_block("go"), encoding="utf-8")
    (folder / "main.go").write_text(GO, encoding="utf-8")
    return [program("go"), "run", "sign.go", "main.go"]


def shell(folder: Path) -> list[str]:
    program("openssl")
    (folder / "sign.sh").write_text(code_block("sh") + SHELL, encoding="utf-8")
    return [program("sh"), "-eu", "sign.sh"]


def program(name: str) -> str:
    """Return the path of a program; skip the test if it is not installed."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def test_vector_equals_make_signature() -> None:
    """The vector's signatures are those of `make_signature`."""
    assert [case.prefix for case, _ in VECTOR] == ["", "", "/objects/videos/7/"]
    for case, signature in VECTOR:
        download, prefix = case.download or None, case.prefix or None
        assert make_signature(SECRET, case.path, EXPIRES, download, prefix) == signature
        if prefix:
            assert make_signature(SECRET, "/ignored", EXPIRES, download, prefix) == signature


@pytest.mark.parametrize("language", [python, javascript, go, shell])
def test_code_makes_valid_signed_urls(
    language: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    """The page's code makes the vector's signatures, and the service accepts its URLs."""
    cases = [*(case for case, _ in VECTOR), *ODD_CASES]
    command = [*language(tmp_path), *(one for case in cases for one in case.arguments())]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    urls = done.stdout.splitlines()
    assert len(urls) == len(cases)
    for case, url in zip(cases, urls, strict=True):
        parts = urlsplit(url)
        parameters = parse_qsl(parts.query)
        assert unquote(parts.path) == case.path
        assert dict(parameters).get("download", "") == case.download
        assert dict(parameters).get("prefix", "") == case.prefix
        keys = {KEY_ID: SECRET}
        assert rejection_reason(keys, case.path, parameters, max_lifetime=EXPIRES) is None, url
    signatures = [dict(parse_qsl(urlsplit(url).query))["signature"] for url in urls]
    assert signatures[: len(VECTOR)] == [signature for _, signature in VECTOR]
    assert urls[1] in TEXT
