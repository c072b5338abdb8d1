"""The deployment files agree with the code, and the dashboard with the metrics."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import MISSING
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from handlers.settings import downloads_in_memory
from scripts.settings_table import documented_settings
from service import EXIT_SETTINGS, FLUSH_SECONDS
from settings import ServerSettings, Settings
from tests.support.components import Store
from tests.support.dashboard import DASHBOARD, dashboard_queries
from tests.support.serving import ROOT, RunningService, ServiceProcess

HEROKU = json.loads((ROOT / "app.json").read_text())
[RENDER] = yaml.safe_load((ROOT / "render.yaml").read_text())["services"]
FLY = tomllib.loads((ROOT / "fly.toml").read_text())
RAILWAY = json.loads((ROOT / "railway.json").read_text())
DOKKU = json.loads((ROOT / "deploy" / "dokku.json").read_text())
UNIT, SOCKET_UNIT = ROOT / "deploy" / "downspout.service", ROOT / "deploy" / "downspout.socket"
KUBERNETES = ROOT / "deploy" / "kubernetes.yaml"
DEPLOYMENT, SERVICE = yaml.safe_load_all(KUBERNETES.read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]

START = (ROOT / "Procfile").read_text().strip().removeprefix("web: ")
SETTINGS = list(documented_settings())
MEANINGS = {name: one.meaning for one in SETTINGS for name in one.names}
NO_MDWE = "the kernel has no PR_SET_MDWE (Linux 6.3)"
REQUIRED = {one.names[0] for one in SETTINGS if one.field.default is MISSING}
SECRETS = {name for one in SETTINGS if one.field.name.startswith("aws_") for name in one.names}


def dockerfile_instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, as pairs of a name and its text."""
    text = re.sub(r"^#.*\n|\\\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [(name, rest) for name, _, rest in (x.partition(" ") for x in text.splitlines() if x)]


def instruction_texts(instruction: str) -> list[str]:
    return [rest for name, rest in dockerfile_instructions() if name == instruction]


IMAGE_ENVIRON = dict(pair.split("=") for text in instruction_texts("ENV") for pair in text.split())
COPIED = [word for text in instruction_texts("COPY") for word in text.split()[:-1]]
HEALTHCHECK = instruction_texts("HEALTHCHECK")[0].partition("CMD ")[2]


def unit_values(path: Path, key: str) -> list[str]:
    """Return the values of a key of a systemd unit, where a key may occur several times."""
    lines = path.read_text().splitlines()
    return [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]


UNIT_ENVIRON = dict(pair.split("=") for pair in unit_values(UNIT, "Environment"))

# The variables of each file; None means that the file has no value.
ENVIRONS: dict[str, dict[str, str | None]] = {
    "app.json": {name: how.get("value") for name, how in HEROKU["env"].items()},
    "render.yaml": {one["key"]: one.get("value") for one in RENDER["envVars"]},
    "fly.toml": FLY["env"],
    "Dockerfile": {**IMAGE_ENVIRON},
    "downspout.service": {**UNIT_ENVIRON},
    "kubernetes.yaml": {one["name"]: one["value"] for one in CONTAINER["env"]},
}
HEALTH_PATHS = {
    "render.yaml": RENDER["healthCheckPath"],
    "fly.toml": FLY["http_service"]["checks"][0]["path"],
    "railway.json": RAILWAY["deploy"]["healthcheckPath"],
    "dokku.json": DOKKU["healthchecks"]["web"][0]["path"],
    "kubernetes.yaml": CONTAINER["livenessProbe"]["httpGet"]["path"],
}
SECONDS_TO_END = {
    "render.yaml": RENDER["maxShutdownDelaySeconds"],
    "fly.toml": int(FLY["kill_timeout"].removesuffix("s")),
    "railway.json": RAILWAY["deploy"]["drainingSeconds"],
    "downspout.service": int(unit_values(UNIT, "TimeoutStopSec")[0]),
    # Kubernetes counts the preStop command.
    "kubernetes.yaml": POD["terminationGracePeriodSeconds"]
    - int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1]),
}


@pytest.mark.parametrize("file", ENVIRONS)
def test_deploy_file_variables_are_valid_settings(file: str) -> None:
    """Each variable in a deployment file is a setting with a valid value."""
    environ = ENVIRONS[file]
    assert set(environ) <= set(MEANINGS)
    given = {name: value for name, value in environ.items() if value is not None}
    assert not SECRETS & set(given)
    settings = ServerSettings.from_environ({"S3_IMAGE_BUCKET": "photos", **given})
    assert {*given, "S3_IMAGE_BUCKET"} == set(settings.sources.values())


@pytest.mark.parametrize("file", ["app.json", "render.yaml"])
def test_deploy_form_requests_required_variables(file: str) -> None:
    """A deployment form requests each required variable and the store's credentials."""
    needed = {*REQUIRED, "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert {name for name, value in ENVIRONS[file].items() if value is None} >= needed


def test_render_variable_has_a_value_or_sync_false() -> None:
    """Each variable in render.yaml has a value or `sync: false`."""
    for one in RENDER["envVars"]:
        assert one.keys() in ({"key", "value"}, {"key", "sync"})
        assert one.get("sync", False) is False


def test_heroku_descriptions_equal_the_settings() -> None:
    """The descriptions in app.json equal the ones in settings.py."""
    for name, how in HEROKU["env"].items():
        assert how["description"] == MEANINGS[name].replace("`", "")


def test_start_command_equals_the_procfile() -> None:
    """The start commands of the Dockerfile and render.yaml equal the Procfile's."""
    [command] = instruction_texts("CMD")
    variables_first = [f"{name}={value}" for name, value in IMAGE_ENVIRON.items()]
    assert shlex.join(["env", *variables_first, *json.loads(command)]) == START
    assert RENDER["startCommand"] == START
    assert RENDER["buildCommand"] == "pip install -r requirements.txt"


@pytest.mark.parametrize("file", HEALTH_PATHS)
def test_health_path_of_platform_returns_200(file: str, service: RunningService) -> None:
    """The health check path of each platform is /healthz, which returns 200."""
    assert HEALTH_PATHS[file] == "/healthz"
    assert service.get(HEALTH_PATHS[file]).status_code == 200


@pytest.mark.parametrize("file", SECONDS_TO_END)
def test_platform_kill_delay_exceeds_shutdown_grace(file: str) -> None:
    """Each platform waits longer than SHUTDOWN_GRACE before it kills the process."""
    grace = Settings(s3_image_bucket="photos").shutdown_grace
    assert SECONDS_TO_END[file] > grace + FLUSH_SECONDS


def test_fly_toml_matches_port_signal_and_limits() -> None:
    """fly.toml has the service's port, drain signal and a request limit that fits."""
    assert FLY["http_service"]["internal_port"] == int(FLY["env"]["PORT"])
    assert FLY["kill_signal"] == "SIGTERM"
    assert FLY["http_service"]["auto_stop_machines"] == "off"
    [machine] = FLY["vm"]
    memory = (int(machine["memory"].removesuffix("mb")) << 20) * 9 // 10  # the kernel takes some
    concurrency = FLY["http_service"]["concurrency"]
    assert concurrency["type"] == "requests"
    ahead = Settings(s3_image_bucket="photos").read_ahead_bytes
    downloads = downloads_in_memory(memory, 1, ahead)
    assert concurrency["soft_limit"] < concurrency["hard_limit"] <= downloads


def test_docker_image_has_the_python_of_the_project() -> None:
    """The Docker image has the version in .python-version."""
    version = (ROOT / ".python-version").read_text().strip()
    assert instruction_texts("FROM") == [f"python:{version}-slim"]


def test_docker_image_installs_before_it_copies_the_code() -> None:
    """A change of the code does not invalidate the layer with the requirements."""
    order = [text for name, text in dockerfile_instructions() if name in ("COPY", "RUN")]
    assert order[0] == "requirements.txt ./"
    assert order[1].startswith("pip install ")
    assert order[1].endswith(" -r requirements.txt")
    assert order[2:] == ["service.py settings.py ./", "handlers handlers"]


def test_docker_image_runs_as_numeric_non_root_user() -> None:
    """The Docker image runs as a numeric user other than root."""
    [user] = instruction_texts("USER")
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    names = [name for name, _ in dockerfile_instructions()]
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])


def test_docker_context_has_only_the_copied_files() -> None:
    """.dockerignore allows only the files that the Dockerfile copies."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    first, *others = [line for line in lines if not line.startswith("#")]
    assert first == "*"
    assert all(line.startswith("!") for line in others)
    allowed = [line.removeprefix("!") for line in others]
    assert {one.partition("/")[0] for one in allowed} == set(COPIED)
    kinds = {one.removeprefix("handlers/**/*") for one in allowed if "/" in one}
    paths = (path for path in (ROOT / "handlers").rglob("*") if "__pycache__" not in path.parts)
    assert {path.suffix for path in paths if path.is_file()} == kinds


def test_docker_files_alone_serve_and_exit_with_0(store: Store, tmp_path: Path) -> None:
    """The copied files alone serve, pass the health check, and exit with 0."""
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    python, *command = json.loads(instruction_texts("CMD")[0])
    assert python == "python"
    with ServiceProcess({**store.environ, **IMAGE_ENVIRON}, *command, cwd=tmp_path) as process:
        port = process.url().rpartition(":")[2]
        assert is_healthy(port)
        assert process.stop() == 0
    assert not is_healthy(port)


def is_healthy(port: str) -> bool:
    """Run the image's own health check as Docker does."""
    python, *command = json.loads(HEALTHCHECK)
    assert python == "python"
    checked = subprocess.run(
        [sys.executable, *command], env={"PORT": port}, check=False, capture_output=True
    )
    return checked.returncode == 0


def test_kubernetes_ports_and_labels_match() -> None:
    """The Service, the Deployment and the probes name the container's port, which is PORT."""
    [port] = CONTAINER["ports"]
    assert port["containerPort"] == ServerSettings(s3_image_bucket="photos").port
    assert str(port["containerPort"]) in instruction_texts("EXPOSE")
    assert [one["targetPort"] for one in SERVICE["spec"]["ports"]] == [port["name"]]
    for probe in ("livenessProbe", "readinessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == port["name"]
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert SERVICE["spec"]["selector"] == labels


def test_kubernetes_readiness_path_returns_200(service: RunningService) -> None:
    """The readiness probe asks /readyz, and waits longer than its deadline."""
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert service.get("/readyz").status_code == 200
    assert CONTAINER["readinessProbe"]["timeoutSeconds"] > 3  # Readiness.deadline_seconds


def test_kubernetes_user_is_the_one_of_the_image() -> None:
    """The pod runs as the numeric user of the image, without further rights."""
    context = POD["securityContext"]
    [user] = instruction_texts("USER")
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert context["runAsNonRoot"] is True
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_kubernetes_memory_gives_enough_downloads() -> None:
    """The memory limit gives at least a hundred downloads, and the request equals it."""
    resources = CONTAINER["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    memory = int(resources["limits"]["memory"].removesuffix("Mi")) << 20
    assert (
        downloads_in_memory(memory, 1, Settings(s3_image_bucket="photos").read_ahead_bytes) > 100
    )


def test_kubernetes_secret_names_are_settings() -> None:
    """The Secret that the comment makes has the variables of the access key."""
    assert CONTAINER["envFrom"] == [{"secretRef": {"name": DEPLOYMENT["metadata"]["name"]}}]
    names = re.findall(r"--from-literal=(\w+)=", KUBERNETES.read_text())
    assert set(names) <= SECRETS
    assert len(names) == 2


def test_kubernetes_manifests_match_the_schema() -> None:
    """The manifests match the JSON schemas in the package kubernetes-validate (108 MB)."""
    validator = pytest.importorskip("kubernetes_validate")
    for manifest in (DEPLOYMENT, SERVICE):
        validator.validate(manifest, validator.latest_version(), strict=True)


def test_systemd_unit_starts_the_service() -> None:
    """The unit starts service.py, and does not restart it after an error of the settings."""
    [command] = unit_values(UNIT, "ExecStart")
    [directory] = unit_values(UNIT, "WorkingDirectory")
    assert command == f"{directory}/.venv/bin/python service.py"
    assert unit_values(UNIT, "RestartPreventExitStatus") == [str(EXIT_SETTINGS)]
    families = unit_values(UNIT, "RestrictAddressFamilies")[0].split()
    assert families == ["AF_INET", "AF_INET6", "AF_UNIX"]
    [socket_mode] = unit_values(SOCKET_UNIT, "SocketMode")
    assert socket_mode == "0660"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is needed")
@pytest.mark.parametrize("host", ["127.0.0.1", "fd:3"])
def test_systemd_units_pass_verification(tmp_path: Path, host: str) -> None:
    """`systemd-analyze verify` finds nothing in the units, with a port or the socket unit."""
    text = UNIT.read_text().replace("/opt/downspout/.venv/bin/python", sys.executable)
    text = text.replace("/opt/downspout", str(ROOT)).replace("HOST=127.0.0.1", f"HOST={host}")
    (tmp_path / UNIT.name).write_text(text)
    shutil.copy(SOCKET_UNIT, tmp_path)
    files = [tmp_path / UNIT.name, tmp_path / SOCKET_UNIT.name]
    told = subprocess.run(
        ["systemd-analyze", "verify", *files], check=True, capture_output=True, text=True
    )
    assert (told.stdout, told.stderr) == ("", "")


def test_service_runs_without_memory_that_turns_executable(store: Store) -> None:
    """The service starts under MemoryDenyWriteExecute, which the systemd unit sets."""
    script = (
        "import ctypes, os, sys; "
        f"ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) and sys.exit('{NO_MDWE}'); "
        "os.execv(sys.executable, [sys.executable, 'service.py'])"
    )
    with ServiceProcess(store.environ, "-c", script) as process:
        first_line = process.wait_for_line("")
        if NO_MDWE in first_line:
            pytest.skip(NO_MDWE)
        process.url()


def test_dashboard_queries_use_existing_metrics(metrics_text: str) -> None:
    """The dashboard uses only existing metrics and labels, and shows every metric."""
    exposed: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics_text):
        for sample in family.samples if not family.name.endswith("_created") else ():
            exposed.setdefault(sample.name, set()).update(sample.labels)
    asked = set()
    for query in dashboard_queries():
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


def test_dashboard_import_needs_only_a_data_source() -> None:
    """The dashboard has a data source variable, and its panels do not overlap."""
    own = {one["name"] for one in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used == {*own, "__rate_interval"}
    _, route = DASHBOARD["templating"]["list"]
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for element in (route, *DASHBOARD["panels"], *targets):
        assert element["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        assert is_apart(one, other)


def is_apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two panel positions on a dashboard do not overlap."""
    return any(
        first[at] + first[size] <= second[at]
        for first, second in ((one, other), (other, one))
        for at, size in (("x", "w"), ("y", "h"))
    )
