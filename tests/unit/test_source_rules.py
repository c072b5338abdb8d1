"""Rules for the source files that the import contracts in pyproject.toml cannot state."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HANDLERS = sorted((ROOT / "handlers").rglob("*.py"))


def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Return the imports of a module that run when it does: not the type checker's."""
    tree = ast.parse(path.read_text())
    for node in list(tree.body):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            tree.body.remove(node)
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def absolute_imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in imports_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif not node.level and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", HANDLERS, ids=str)
def test_package_can_be_renamed(path: Path) -> None:
    """Nothing in the package imports the package, the settings or the service by name."""
    assert not absolute_imports_of(path) & {"handlers", "settings", "service", "downspout"}


def test_service_knows_the_package_by_its_root_alone() -> None:
    """The process entry uses what any embedder could."""
    for node in imports_of(ROOT / "service.py"):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("handlers.")


@pytest.mark.parametrize("path", [*HANDLERS, ROOT / "service.py"], ids=str)
def test_configuration_is_read_in_settings_alone(path: Path) -> None:
    """No other module looks at the environment."""
    # What service.py writes there is for the workers, and no reading.
    text = path.read_text().replace("from_environ", "").replace("os.environ[", "")
    assert not re.search(r"environ\b(?!\()|getenv", text)


@pytest.mark.parametrize("path", [*HANDLERS, ROOT / "service.py", ROOT / "settings.py"])
def test_nothing_of_the_demo_is_imported(path: Path) -> None:
    """A PaaS that installs requirements.txt alone has all that runs."""
    assert not absolute_imports_of(path) & {"moto", "boto3", "httpbin", "flask", "werkzeug"}


def test_no_base_http_middleware() -> None:
    """Middleware is pure ASGI: Starlette's base class hides the client's leaving."""
    assert not [path for path in HANDLERS if "BaseHTTPMiddleware" in path.read_text()]


LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines_of_code(path: Path) -> int:
    """Return how many lines have code on them: no docstrings, comments or blank lines."""
    with path.open("rb") as source:
        tokens = [
            token for token in tokenize.tokenize(source.readline) if token.type not in LAYOUT
        ]
    lines = {n for token in tokens for n in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(path.read_text())):
        # A string that stands alone is documentation.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_service_stays_small() -> None:
    """It is a small service, and what makes it larger wants a reason."""
    paths = [*HANDLERS, ROOT / "service.py", ROOT / "settings.py"]
    assert sum(map(lines_of_code, paths)) < 5700
