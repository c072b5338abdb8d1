"""The pages have every problem, reason and log line of the code, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from tests.support.markdown import table_below
from tests.support.serving import ROOT

TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HTTP_API = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")

SECTIONS = [
    "By reason: the store's credentials and configuration",
    "By reason: connection and time",
    "By reason: answers of the store or upstream",
    "By reason: requests and credentials of clients",
    "By log line",
]
LOG_METHODS = {f"logger.{level}" for level in ("info", "warning", "error", "exception", "log")}

# The readiness check does not log its error. Any row would match the other text.
NO_REASONS = {"store: not ready within ... s", "...: ..."}


@cache
def modules() -> list[ast.Module]:
    """Return the syntax trees of the package and of service.py."""
    paths = [*sorted((ROOT / "handlers").rglob("*.py")), ROOT / "service.py"]
    return [ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in paths]


def template(node: ast.AST) -> str | None:
    """Return the text of a string or f-string, with `...` for each varying part."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[dsg]", "...", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "..." for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (template(node.left) or "...") + (template(node.right) or "...")
    if isinstance(node, ast.Call) and name_of(node.func) == "rstrip":
        return template(node.func.value)  # type: ignore[attr-defined]
    return None


@cache
def error_classes() -> re.Pattern[str]:
    """Return a pattern of the errors whose text is the reason in a download's log line."""
    names = {"DownloadError"}
    classes = [
        node for tree in modules() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    ]
    for _ in range(4):  # levels of inheritance
        names |= {one.name for one in classes if names & {name_of(base) for base in one.bases}}
    names |= {"BrokenTransfer", "StrayCancellation", "kind", "translate_error"}
    return re.compile(rf"\b({'|'.join(names)})\b")


def name_of(node: ast.AST) -> str:
    """Return the last part of a dotted name."""
    return ast.unparse(node).rpartition(".")[2]


def assigned_texts(statements: Iterable[ast.AST], name: str) -> list[str]:
    """Return the texts that these statements assign to a variable or constant."""
    found = [
        template(node.value)
        for node in statements
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return [text for text in found if text]


def argument_texts(function: ast.AST, argument: ast.expr) -> list[str]:
    """Return the texts of an argument: its own, or those of the variable that it names."""
    if (text := template(argument)) is not None:
        return [text]
    name = ast.unparse(argument)
    constants = [one for tree in modules() for one in tree.body]
    return assigned_texts(ast.walk(function), name) or assigned_texts(constants, name)


def function_texts(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the templates of the reasons and log lines in a function."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            position = 1 if called == "logger.log" else 0
            if called in LOG_METHODS:
                yield from argument_texts(function, node.args[position])
            elif called == "logging.LogRecord":
                yield from assigned_texts(ast.walk(function), "text")
            elif called == "reasons.append" or error_classes().search(called):
                yield from (text for one in node.args for text in argument_texts(function, one))
        elif isinstance(node, ast.Return) and node.value and "rejection" in function.name:
            yield from (text for one in ast.walk(node.value) if (text := template(one)))


@cache
def code_texts() -> set[str]:
    """Return the templates of all reasons and log lines in the code."""
    found = set(stopped_texts())
    for function in (node for tree in modules() for node in ast.walk(tree)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= {text for text in function_texts(function) if " " in text.strip()}
            defaults = zip(
                reversed(function.args.args), reversed(function.args.defaults), strict=False
            )
            found |= {template(value) or "" for name, value in defaults if name.arg == "log_text"}
    return found - {"", *NO_REASONS}


def stopped_texts() -> set[str]:
    """Return the reasons of downloads that the service stops itself."""
    [stopped] = [
        node.value
        for tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STOPPED"
    ]
    return set(ast.literal_eval(stopped).values())


def page_texts(page: str) -> list[str]:
    """Return the texts in the first column of the tables of reasons and log lines."""
    return [row[0].strip("`") for heading in SECTIONS for row in table_below(page, heading)]


def is_match(row: str, text: str) -> bool:
    """Return whether a row is about a text of the code."""
    return re.fullmatch(".+?".join(map(re.escape, text.split("..."))), row) is not None


def undocumented(page: str, texts: set[str]) -> set[str]:
    """Return the texts of the code that no row is about."""
    rows = page_texts(page)
    return {text for text in texts if not any(is_match(row, text) for row in rows)}


def unknown(page: str, texts: set[str]) -> set[str]:
    """Return the rows that are about no text of the code."""
    return {row for row in page_texts(page) if not any(is_match(row, text) for text in texts)}


def problems() -> set[tuple[str, str]]:
    """Return status and kind of each problem in the code."""
    found = set()
    for tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.Call):
                given = {one.arg: one.value for one in node.keywords}
                status, kind = given.get("status"), given.get("kind")
                if isinstance(status, ast.Constant) and isinstance(kind, ast.Constant):
                    found.add((str(status.value), str(kind.value)))
    return {pair for pair in found if pair[0] != "None"}


def documented_problems(page: str) -> set[tuple[str, str]]:
    """Return status and kind of each row in the table of problems."""
    if page.startswith("# HTTP API"):
        rows = table_below(page, "Errors")
        return {(status, kind.strip("`")) for status, kind, _ in rows}
    cells = [row[0] for row in table_below(page, "By status") if "`" in row[0]]
    return {(cell.split()[0], cell.split("`")[1]) for cell in cells}


def test_every_reason_and_log_line_has_a_row() -> None:
    """Each reason and log line of the code has a row, and each row a text of the code."""
    assert len(code_texts()) > 70
    assert not undocumented(TROUBLESHOOTING, code_texts())
    assert not unknown(TROUBLESHOOTING, code_texts())


@pytest.mark.parametrize("row", page_texts(TROUBLESHOOTING)[::12])
def test_missing_or_unknown_row_is_noticed(row: str) -> None:
    """A page without a row, or with a row of another text, is noticed."""
    other = TROUBLESHOOTING.replace(f"| `{row}` |", "| `no text of the code` |")
    assert unknown(other, code_texts()) == {"no text of the code"}
    only = {
        text
        for text in code_texts()
        if [x for x in page_texts(TROUBLESHOOTING) if is_match(x, text)] == [row]
    }
    assert undocumented(other, code_texts()) == only


@pytest.mark.parametrize("page", [HTTP_API, TROUBLESHOOTING], ids=["http-api", "troubleshooting"])
def test_every_problem_has_a_row(page: str) -> None:
    """Each problem of the code has a row with its status, and each row is a problem."""
    assert len(problems()) > 15
    of_status = {("405", "method-not-allowed")}  # Its kind is the phrase of the status.
    assert documented_problems(page) - of_status == problems()


@pytest.mark.parametrize("page", [HTTP_API, TROUBLESHOOTING], ids=["http-api", "troubleshooting"])
def test_missing_or_wrong_problem_is_noticed(page: str) -> None:
    """A table without a problem, or with another status, is noticed."""
    broken = page.replace("`upstream-busy`", "`upstream-lazy`")
    assert documented_problems(broken) ^ documented_problems(page) == {
        ("503", "upstream-busy"),
        ("503", "upstream-lazy"),
    }
