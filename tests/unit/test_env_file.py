"""ENV_FILE: which lines are read, and how wrong lines are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers import cli
from handlers.env_file import load_env_file
from handlers.settings import SettingsError

SECRET = "wJalrXUtnFEMI"


def load(path: Path, content: str | bytes, **environ: str) -> dict[str, str]:
    """Write `content` to `path`, load it, and return the environment without ENV_FILE."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    environ["ENV_FILE"] = str(path)
    load_env_file(environ)
    assert environ.pop("ENV_FILE") == str(path)
    return environ


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "service.env"


@pytest.mark.parametrize(
    ("content", "environ"),
    [
        ("", {}),
        ("\n  \n# NAME=1\n  # NAME=2\n", {}),
        ("NAME=value\nOTHER=2", {"NAME": "value", "OTHER": "2"}),
        ("  NAME=value", {"NAME": "value"}),
        ("NAME=", {"NAME": ""}),
        ("NAME=a=b # c 'd' \n", {"NAME": "a=b # c 'd' "}),
        ("NAME=$HOME${X}\\n", {"NAME": "$HOME${X}\\n"}),
        ("NAME=1\nNAME=2\n", {"NAME": "2"}),
        ("NAME=1\r\nOTHER=2\r\n", {"NAME": "1", "OTHER": "2"}),
        (b"\xef\xbb\xbfNAME=gr\xc3\xbc\xc3\x9fe\n", {"NAME": "grüße"}),
        (b"NAME=\xff\n", {"NAME": "\udcff"}),
        ("NAME=a\u2028b\x0cc\n", {"NAME": "a\u2028b\x0cc"}),
    ],
)
def test_line_becomes_a_variable(
    path: Path, content: str | bytes, environ: dict[str, str]
) -> None:
    """Each line is a variable with its literal value, except comments and blank lines."""
    assert load(path, content) == environ


def test_variable_of_the_environment_wins(path: Path) -> None:
    """A variable that is set already, even a blank one, keeps its value."""
    read = load(path, "NAME=file\nBLANK=file\nNEW=file\n", NAME="own", BLANK="")
    assert read == {"NAME": "own", "BLANK": "", "NEW": "file"}


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_file_is_read_without_env_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """Without ENV_FILE no file is read, not even a `.env` in the working directory."""
    path.with_name(".env").write_text("NAME=value\n")
    monkeypatch.chdir(path.parent)
    environ = {} if value is None else {"ENV_FILE": value}
    load_env_file(environ)
    assert "NAME" not in environ


@pytest.mark.parametrize(
    "line",
    [
        SECRET,
        f"export NAME={SECRET}",
        f"={SECRET}",
        f"NA-ME={SECRET}",
        f"NAME ={SECRET}",
        f"NAME='{SECRET}'",
        f'NAME="{SECRET}"',
    ],
)
def test_wrong_line_is_reported_without_its_text(path: Path, line: str) -> None:
    """A line that is not NAME=VALUE is reported with file and number, without its text."""
    with pytest.raises(SettingsError) as raised:
        load(path, f"# first\n{line}\nGOOD=1\n{line}\0\n")
    end = "must be NAME=VALUE, without spaces around NAME and quotes around VALUE"
    assert raised.value.problems == [f"{path}:2: {end}", f"{path}:4: {end}"]


def test_wrong_file_adds_no_variable(path: Path) -> None:
    """If a line is wrong, the lines before it are not added either."""
    path.write_text("NAME=1\nwrong\n")
    environ = {"ENV_FILE": str(path)}
    with pytest.raises(SettingsError):
        load_env_file(environ)
    assert environ == {"ENV_FILE": str(path)}


@pytest.mark.parametrize(("name", "reason"), [("x", "No such file"), ("", "Is a directory")])
def test_unreadable_file_is_one_line(path: Path, name: str, reason: str) -> None:
    """A file that can't be read is one line that names ENV_FILE and the reason."""
    missing = str(path.parent / name)
    with pytest.raises(SettingsError) as raised:
        load_env_file({"ENV_FILE": missing})
    [problem] = raised.value.problems
    assert problem.startswith(f"ENV_FILE {missing}: {reason}")


def test_sign_command_reads_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`downspout sign` takes its keys from ENV_FILE, and reports a wrong line with exit code 2."""
    monkeypatch.delenv("URL_SIGNING_KEYS", raising=False)
    monkeypatch.setenv("ENV_FILE", str(path))
    path.write_text("URL_SIGNING_KEYS=2026a:0123456789abcdef\n")
    try:
        cli.main(["sign", "http://host/tasks/1/image"])
        assert "key=2026a" in capsys.readouterr().out
        path.write_text(f"{SECRET}\n")
        with pytest.raises(SystemExit) as ended:
            cli.main(["sign", "http://host/tasks/1/image"])
    finally:
        monkeypatch.delenv("URL_SIGNING_KEYS")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"{path}:1: must be NAME=VALUE")
