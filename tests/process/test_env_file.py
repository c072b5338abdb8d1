"""ENV_FILE in a process: `python service.py`, its workers and its demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.components import Store
from tests.support.serving import ServiceProcess, http_get


@pytest.mark.parametrize("workers", ["1", "2"])
def test_service_takes_its_settings_from_env_file(
    store: Store, tmp_path: Path, workers: str
) -> None:
    """``python service.py`` and its workers have the variables of ENV_FILE."""
    store.put("test/1/image.jpg", b"picture")
    path = tmp_path / "service.env"
    given = {**store.environ, "WEB_CONCURRENCY": workers, "LOG_FORMAT": "json"}
    path.write_text("# store\n" + "".join(f"{name}={value}\n" for name, value in given.items()))
    with ServiceProcess({"ENV_FILE": str(path)}) as process:  # It has LOG_FORMAT=text, which wins.
        answer = http_get(f"{process.url()}/tasks/1/image")
        assert answer.content == b"picture"
        process.wait_for_line("INFO downspout: listening on")
        assert process.stop() == 0
        assert process.saw("Started parent process") == (workers == "2")


@pytest.mark.parametrize("command", [(), ("service.py", "sign", "/tasks/1/image")])
def test_wrong_env_file_exits_with_2(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A wrong line of ENV_FILE is one line without its text, and the exit code is 2."""
    path = tmp_path / "service.env"
    path.write_text("S3_IMAGE_BUCKET=photos\nAWS_SECRET_ACCESS_KEY: wJalrXUtnFEMI\n")
    with ServiceProcess({"ENV_FILE": str(path)}, *command) as process:
        assert process.end() == 2
    [line] = process.lines
    assert line.startswith(f"{path}:2: must be NAME=VALUE, without spaces around NAME")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_metrics_directory_in_env_file_is_used(store: Store, tmp_path: Path, workers: str) -> None:
    """PROMETHEUS_MULTIPROC_DIR in ENV_FILE holds, although it is read at an import."""
    path, directory = tmp_path / "service.env", tmp_path / "metrics"
    path.write_text(f"PROMETHEUS_MULTIPROC_DIR={directory}\n")
    environ = {**store.environ, "ENV_FILE": str(path), "WEB_CONCURRENCY": workers}
    with ServiceProcess(environ) as process:
        metrics = http_get(f"{process.url()}/metrics")
        assert metrics.status_code == 200
        assert list(directory.glob("*.db"))


def test_demo_ignores_the_store_of_env_file(tmp_path: Path) -> None:
    """``--demo`` takes no store from ENV_FILE, but settings such as LOG_FORMAT."""
    path = tmp_path / "service.env"
    path.write_text("S3_IMAGE_KEY=elsewhere\nAWS_PROFILE=missing\nMAX_DOWNLOADS=0\n")
    with ServiceProcess({"ENV_FILE": str(path)}, "service.py", "--demo") as process:
        assert process.end() == 2
        assert process.lines[-1].startswith("MAX_DOWNLOADS must be a whole number")
    path.write_text("S3_IMAGE_KEY=elsewhere\nAWS_PROFILE=missing\n")
    with ServiceProcess({"ENV_FILE": str(path)}, "service.py", "--demo") as process:
        assert http_get(f"{process.url()}/tasks/1/image").status_code == 200
