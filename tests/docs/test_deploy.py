"""What platforms deploy by agrees with the code, and the dashboard with the metrics."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from dataclasses import MISSING
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from handlers.settings import downloads_in_memory
from handlers.telemetry.record import Outcome
from scripts.settings_table import documented_settings
from service import FLUSH_SECONDS
from settings import Settings, load
from tests.support.components import Store
from tests.support.serving import ROOT, RunningService, ServiceProcess

HEROKU = json.loads((ROOT / "app.json").read_text())
[RENDER] = yaml.safe_load((ROOT / "render.yaml").read_text())["services"]
FLY = tomllib.loads((ROOT / "fly.toml").read_text())
RAILWAY = json.loads((ROOT / "railway.json").read_text())
DOKKU = json.loads((ROOT / "deploy" / "dokku.json").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text())

START = (ROOT / "Procfile").read_text().strip().removeprefix("web: ")
SETTINGS = list(documented_settings())
MEANINGS = {name: one.meaning for one in SETTINGS for name in one.variable.names}
REQUIRED = {one.variable.names[0] for one in SETTINGS if one.variable.default is MISSING}
SECRETS = {
    name
    for one in SETTINGS
    if one.variable.field.startswith("aws_")
    for name in one.variable.names
}


def instructions() -> list[tuple[str, str]]:
    """Return what the Dockerfile says, as pairs of an instruction and its text."""
    text = re.sub(r"^#.*\n|\\\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [(name, rest) for name, _, rest in (x.partition(" ") for x in text.splitlines() if x)]


def texts(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


IMAGE_ENVIRON = dict(pair.split("=") for text in texts("ENV") for pair in text.split())
COPIED = [word for text in texts("COPY") for word in text.split()[:-1]]
HEALTHCHECK = texts("HEALTHCHECK")[0].partition("CMD ")[2]

# The variables that each sets, with a value or without one.
ENVIRONS: dict[str, dict[str, str | None]] = {
    "app.json": {name: how.get("value") for name, how in HEROKU["env"].items()},
    "render.yaml": {one["key"]: one.get("value") for one in RENDER["envVars"]},
    "fly.toml": FLY["env"],
    "Dockerfile": {**IMAGE_ENVIRON},
}
HEALTH_PATHS = {
    "render.yaml": RENDER["healthCheckPath"],
    "fly.toml": FLY["http_service"]["checks"][0]["path"],
    "railway.json": RAILWAY["deploy"]["healthcheckPath"],
    "dokku.json": DOKKU["healthchecks"]["web"][0]["path"],
}
SECONDS_TO_END = {
    "render.yaml": RENDER["maxShutdownDelaySeconds"],
    "fly.toml": int(FLY["kill_timeout"].removesuffix("s")),
    "railway.json": RAILWAY["deploy"]["drainingSeconds"],
}


@pytest.mark.parametrize("file", ENVIRONS)
def test_variables_are_settings_with_right_values(file: str) -> None:
    """Each variable that a file sets is one that is read, and takes the value that it has."""
    environ = ENVIRONS[file]
    assert set(environ) <= set(MEANINGS)
    given = {name: value for name, value in environ.items() if value is not None}
    assert not SECRETS & set(given)
    settings, server = load({"S3_IMAGE_BUCKET": "photos", **given})
    sources = {*settings.sources.values(), *server.sources.values()}
    assert {*given, "S3_IMAGE_BUCKET"} == sources


@pytest.mark.parametrize("file", ["app.json", "render.yaml"])
def test_who_fills_in_a_form_is_asked_for_all_that_is_needed(file: str) -> None:
    """What has no default is asked for, and the keys of the store, of which there is none."""
    needed = {*REQUIRED, "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert {name for name, value in ENVIRONS[file].items() if value is None} >= needed


def test_render_asks_for_what_has_no_value() -> None:
    """A variable has a value in render.yaml or is asked for, never kept in the file."""
    for one in RENDER["envVars"]:
        assert one.keys() in ({"key", "value"}, {"key", "sync"})
        assert one.get("sync", False) is False


def test_heroku_explains_variables_as_the_settings_do() -> None:
    """The words of app.json are those of settings.py."""
    for name, how in HEROKU["env"].items():
        assert how["description"] == MEANINGS[name].replace("`", "")


def test_every_start_is_that_of_the_procfile() -> None:
    """A platform that has its own start command has the Procfile's."""
    [command] = texts("CMD")
    variables_first = [f"{name}={value}" for name, value in IMAGE_ENVIRON.items()]
    assert shlex.join(["env", *variables_first, *json.loads(command)]) == START
    assert RENDER["startCommand"] == START
    assert RENDER["buildCommand"] == "pip install -r requirements.txt"


@pytest.mark.parametrize("file", HEALTH_PATHS)
def test_health_path_answers(file: str, service: RunningService) -> None:
    """What a platform asks for its health is there, and does not ask the store."""
    assert HEALTH_PATHS[file] == "/healthz"
    assert service.get(HEALTH_PATHS[file]).status_code == 200


@pytest.mark.parametrize("file", SECONDS_TO_END)
def test_downloads_have_their_grace(file: str) -> None:
    """A platform that is told how long to wait before it kills waits longer than we do."""
    grace = Settings(s3_image_bucket="photos").shutdown_grace
    assert SECONDS_TO_END[file] > grace + FLUSH_SECONDS


def test_fly_sends_requests_where_they_are_served() -> None:
    """One port, the signal that drains, no stop for want of requests, and no more than fit."""
    assert FLY["http_service"]["internal_port"] == int(FLY["env"]["PORT"])
    assert FLY["kill_signal"] == "SIGTERM"
    assert FLY["http_service"]["auto_stop_machines"] == "off"
    [machine] = FLY["vm"]
    memory = (int(machine["memory"].removesuffix("mb")) << 20) * 9 // 10  # the kernel has some
    concurrency = FLY["http_service"]["concurrency"]
    assert concurrency["type"] == "requests"
    ahead = Settings(s3_image_bucket="photos").read_ahead_bytes
    downloads = downloads_in_memory(memory, 1, ahead)
    assert concurrency["soft_limit"] < concurrency["hard_limit"] <= downloads


def test_image_has_the_python_of_the_project() -> None:
    """Platforms and image take the same Python."""
    version = (ROOT / ".python-version").read_text().strip()
    assert texts("FROM") == [f"python:{version}-slim"]


def test_image_installs_before_it_copies_the_code() -> None:
    """A change of the code leaves the layer with what it needs as it is."""
    order = [text for name, text in instructions() if name in ("COPY", "RUN")]
    assert order[0] == "requirements.txt ./"
    assert order[1].startswith("pip install ")
    assert order[1].endswith(" -r requirements.txt")
    assert order[2:] == ["service.py settings.py ./", "handlers handlers"]


def test_image_runs_as_nobody_in_particular() -> None:
    """Not root, said by number, and last, so that nothing behind it is another user's."""
    [user] = texts("USER")
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    names = [name for name, _ in instructions()]
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])


def test_context_is_what_is_copied() -> None:
    """Docker is handed what the Dockerfile copies, and neither a .env nor the history."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    first, *others = [line for line in lines if not line.startswith("#")]
    assert first == "*"
    assert all(line.startswith("!") for line in others)
    allowed = [line.removeprefix("!") for line in others]
    assert {one.partition("/")[0] for one in allowed} == set(COPIED)
    kinds = {one.removeprefix("handlers/**/*") for one in allowed if "/" in one}
    paths = (path for path in (ROOT / "handlers").rglob("*") if "__pycache__" not in path.parts)
    assert {path.suffix for path in paths if path.is_file()} == kinds


def test_what_is_copied_is_enough(store: Store, tmp_path: Path) -> None:
    """With those files alone the image's command serves, is found healthy, and ends with 0."""
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    python, *command = json.loads(texts("CMD")[0])
    assert python == "python"
    with ServiceProcess({**store.environ, **IMAGE_ENVIRON}, *command, cwd=tmp_path) as process:
        port = process.url().rpartition(":")[2]
        assert is_healthy(port)
        process.process.send_signal(signal.SIGTERM)
        assert process.end() == 0
    assert not is_healthy(port)


def is_healthy(port: str) -> bool:
    """Run the image's own health check as Docker does."""
    python, *command = json.loads(HEALTHCHECK)
    assert python == "python"
    checked = subprocess.run(
        [sys.executable, *command], env={"PORT": port}, check=False, capture_output=True
    )
    return checked.returncode == 0


def queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked = [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]
    return [*found, *asked]


def test_dashboard_asks_for_metrics_that_there_are(metrics_text: str) -> None:
    """Each metric and label in a query is one of /metrics, and each metric there is shown."""
    exposed: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics_text):
        for sample in family.samples if not family.name.endswith("_created") else ():
            exposed.setdefault(sample.name, set()).update(sample.labels)
    asked = set()
    for query in queries():
        names = re.findall(r"\bdownspout_\w+", query)
        labels = set(re.findall(r"(\w+)=~?\"", query))
        for group in re.findall(r"by \(([^)]*)\)|label_values\(\w+, (\w+)\)", query):
            labels |= set("".join(group).split(", "))
        assert names
        for name in names:
            assert labels <= exposed[name], query
        asked |= set(names)
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in asked}
    assert shown == {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed}


def test_dashboard_asks_for_outcomes_that_there_are() -> None:
    """Each outcome in a query is one that a download may have."""
    outcomes = {one for part in get_args(Outcome) for one in get_args(part)}
    asked = re.findall(r'outcome=~"([^"]*)"', "".join(queries()))
    assert asked
    assert {one for group in asked for one in group.split("|")} <= outcomes


def test_dashboard_can_be_imported_anywhere() -> None:
    """Its data source is asked for, its variables are its own, and its panels lie side by side."""
    own = {one["name"] for one in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used == {*own, "__rate_interval"}
    _, route = DASHBOARD["templating"]["list"]
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for place in (route, *DASHBOARD["panels"], *targets):
        assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        assert are_apart(one, other)


def are_apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two places on a dashboard do not overlap."""
    return any(
        first[at] + first[size] <= second[at]
        for first, second in ((one, other), (other, one))
        for at, size in (("x", "w"), ("y", "h"))
    )
