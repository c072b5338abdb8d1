"""Rules for the source files that the import contracts in pyproject.toml cannot state."""

import ast
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_FIELDS = 10
MAX_TOTAL_LINES = 8785

# Classes with more than MAX_FIELDS fields, and the reason.
LARGE_CLASSES = {
    "Settings": "it has one field for each environment variable",
    "Record": "it has one field for each value of a download's log line",
    "ReadAheadLimits": "it has one field for each threshold of the read-ahead",
}

# Files outside tests/unit that import inner modules, because they need real sockets as well:
# test_raw_client.py compares RawClient with aiohttp, and sends it bytes that no S3 server sends;
# test_read_ahead_faults.py replaces the controller, so that read-ahead starts within a second;
# access.py measures the nanoseconds of one comparison, which HTTP would hide.
TESTS_WITH_INNER_IMPORTS = {
    "tests/service/test_raw_client.py",
    "tests/service/test_read_ahead_faults.py",
    "tools/benchmarks/access.py",
}

# The modules of the package that any host can import.
PUBLIC = {
    "handlers",
    "handlers.cli",
    "handlers.process_log",
    "handlers.server",
    "handlers.settings",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def absolute_imports(self) -> Iterator[str]:
        """Yield the dotted name of each module that is imported by its full name."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module or ""

    def names(self) -> Iterator[str]:
        """Yield each identifier in the code, without comments and docstrings."""
        for node in self.nodes:
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr
            elif isinstance(node, ast.alias):
                yield node.name

    def functions(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the number of lines of each function, decorators included."""
        for node in self.nodes:
            if isinstance(node, Function):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                yield node.name, (node.end_lineno or first) - first + 1

    def classes(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the number of fields of each class."""
        for node in self.nodes:
            if isinstance(node, ast.ClassDef):
                yield node.name, len(fields(node))


def fields(node: ast.ClassDef) -> set[str]:
    """Return the fields that a class declares, and the attributes that it sets on `self`."""
    found = {
        line.target.id
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if not ast.unparse(line.annotation).startswith("ClassVar")
    }
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
            found |= {part.attr} if ast.unparse(part.value) == "self" else set()
    return found


def sources(*folders: str) -> list[Source]:
    """Return the Python files in these folders, without those of a virtual environment."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(path) for path in paths if ".venv" not in path.parts]


PACKAGE = sources("handlers")
PRODUCT = [Source(ROOT / "service.py"), Source(ROOT / "settings.py"), *PACKAGE]
TESTS = sources("tests", "tools")


def check(problems: Iterable[str], rule: str) -> None:
    """Fail with the rule and one line for each problem, if there is any."""
    if found := list(problems):
        pytest.fail("\n  ".join([rule, *found]), pytrace=False)


def forbidden_imports(
    files: Iterable[Source], is_forbidden: Callable[[str], bool]
) -> Iterator[str]:
    """Yield a line for each import of a module for which `is_forbidden` returns True."""
    for source in files:
        for module in source.absolute_imports():
            if is_forbidden(module):
                yield f"{source.name} imports {module}"


def top_level(module: str) -> str:
    return module.partition(".")[0]


def is_inner(module: str) -> bool:
    """Return whether a module belongs to the package and is not public."""
    return top_level(module) == "handlers" and module not in PUBLIC


def test_source_rules_include_subfolders() -> None:
    """The rules apply to the files in all folders of the package."""
    assert {"handlers", "sources", "s3"} <= {source.path.parent.name for source in PACKAGE}


def test_package_modules_import_each_other_relatively() -> None:
    """Relative imports let a host install the package beside its own settings.py."""
    own = {"handlers", "downspout", "settings", "service"}
    check(
        forbidden_imports(PACKAGE, lambda module: top_level(module) in own),
        "A module of the package imports its neighbours relatively, and no top-level module:",
    )


def test_service_and_settings_import_only_public_modules() -> None:
    """service.py and settings.py import only modules that any host can import."""
    # ServerSettings is declared in the same way as Settings.
    # Only the process may change the environment, so a host has no use for env_file.
    public = {*PUBLIC, "handlers.env_file", "handlers.kinds"}
    check(
        forbidden_imports(PRODUCT[:2], lambda module: is_inner(module) and module not in public),
        f"service.py and settings.py import only {', '.join(sorted(public))}:",
    )


def test_environment_is_read_only_in_settings_and_env_file() -> None:
    """Only a settings.py reads environment variables, and env_file.py adds some."""

    def reads(source: Source) -> bool:
        written = {
            node.value
            for node in source.nodes
            if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        }
        used = {
            node.attr
            for node in source.nodes
            if isinstance(node, ast.Attribute) and node not in written
            if isinstance(node.value, ast.Name) and node.value.id == "os"
        }
        return bool({"environ", "environb", "getenv"} & (used | imported_from(source, "os")))

    check(
        (
            source.name
            for source in PRODUCT
            if source.path.name not in ("settings.py", "env_file.py") and reads(source)
        ),
        "Only a settings.py and env_file.py read the environment; these files do as well:",
    )


def imported_from(source: Source, module: str) -> set[str]:
    """Return the names that a file imports from a module."""
    found = [
        node.names
        for node in source.nodes
        if isinstance(node, ast.ImportFrom) and (node.level, node.module) == (0, module)
    ]
    return {alias.name for alias in chain(*found)}


def test_product_imports_no_test_packages() -> None:
    """The service runs with requirements.txt alone."""
    tests_only = {"boto3", "flask", "httpbin", "moto", "werkzeug"}
    check(
        forbidden_imports(PRODUCT, lambda module: top_level(module) in tests_only),
        "The service does not import packages of the demo and the tests:",
    )


def test_product_has_no_type_checking_block() -> None:
    """Without TYPE_CHECKING blocks, `typing.get_type_hints` resolves every name."""
    check(
        (source.name for source in PRODUCT if "TYPE_CHECKING" in source.names()),
        "Import types at run time; these files have TYPE_CHECKING:",
    )


def test_product_does_not_use_base_http_middleware() -> None:
    """BaseHTTPMiddleware hides a disconnect, so all middleware is pure ASGI."""
    check(
        (source.name for source in PRODUCT if "BaseHTTPMiddleware" in source.names()),
        "These files use BaseHTTPMiddleware:",
    )


def test_package_import_has_no_side_effect() -> None:
    """A module of the package only defines and imports at its top level."""
    allowed = ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | Function | ast.ClassDef

    def statements(source: Source) -> Iterator[ast.stmt]:
        for node in ast.parse(source.text).body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not is_text and not isinstance(node, allowed):
                yield node

    check(
        (f"{source.name}:{node.lineno}" for source in PACKAGE for node in statements(source)),
        "A statement runs when the module is imported:",
    )


def test_file_has_at_most_300_lines() -> None:
    """No file of the product has more than 300 lines."""
    check(
        (
            f"{source.name} has {source.lines}"
            for source in PRODUCT
            if source.lines > MAX_FILE_LINES
        ),
        f"A file has at most {MAX_FILE_LINES} lines; split these:",
    )


def test_function_has_at_most_40_lines() -> None:
    """No function of the product has more than 40 lines."""
    check(
        (
            f"{source.name}: {name} has {lines}"
            for source in PRODUCT
            for name, lines in source.functions()
            if lines > MAX_FUNCTION_LINES
        ),
        f"A function has at most {MAX_FUNCTION_LINES} lines; split these:",
    )


def test_median_function_has_fewer_than_8_lines() -> None:
    """The median function of the product has fewer than 8 lines."""
    lines = [lines for source in PRODUCT for _, lines in source.functions()]
    median = statistics.median(lines)
    assert median < 8, f"the median function has {median:g} lines"


def test_class_has_at_most_10_fields() -> None:
    """No class has more than 10 fields, except those in LARGE_CLASSES."""
    allowed = LARGE_CLASSES.keys()
    check(
        (
            f"{source.name}: {name} has {number}"
            for source in PRODUCT
            for name, number in source.classes()
            if number > MAX_FIELDS and name not in allowed
        ),
        f"A class has at most {MAX_FIELDS} fields; split these, or add a reason to LARGE_CLASSES:",
    )


def test_large_class_exception_is_still_needed() -> None:
    """Each class in LARGE_CLASSES has more than 10 fields."""
    numbers = dict(chain(*(source.classes() for source in PRODUCT)))
    check(
        (name for name in LARGE_CLASSES if numbers.get(name, 0) <= MAX_FIELDS),
        f"These classes have at most {MAX_FIELDS} fields; remove them from LARGE_CLASSES:",
    )


def test_product_has_at_most_max_total_lines() -> None:
    """A change that makes the product larger has to raise MAX_TOTAL_LINES."""
    lines = sum(source.lines for source in PRODUCT)
    assert lines <= MAX_TOTAL_LINES, (
        f"service.py, settings.py and handlers/ have {lines} lines, "
        f"MAX_TOTAL_LINES is {MAX_TOTAL_LINES}"
    )


def test_service_tests_import_only_public_modules() -> None:
    """Only tests/unit and tests/support import inner modules of the package."""
    outer = (
        source
        for source in TESTS
        if not source.name.startswith(("tests/unit/", "tests/support/"))
        if source.name not in TESTS_WITH_INNER_IMPORTS
    )
    check(
        forbidden_imports(outer, is_inner), "Only tests/unit imports inner modules of the package:"
    )


def test_inner_import_exception_is_still_needed() -> None:
    """Each file in TESTS_WITH_INNER_IMPORTS imports an inner module."""
    needed = {source.name for source in TESTS if any(map(is_inner, source.absolute_imports()))}
    check(
        sorted(TESTS_WITH_INNER_IMPORTS - needed),
        "These files import no inner module; remove them from TESTS_WITH_INNER_IMPORTS:",
    )


def test_tests_do_not_patch_constants() -> None:
    """A test passes a small threshold as an argument instead of patching a constant."""

    def patched(source: Source) -> Iterator[str]:
        for node in source.nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "monkeypatch.setattr":
                texts = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
                name = str(texts[0]).rpartition(".")[2] if texts else ""
                if name.isupper():
                    yield name

    check(
        (f"{source.name} patches {name}" for source in TESTS for name in patched(source)),
        "Pass the value as an argument; do not patch a constant:",
    )
