"""docker-compose.yml: valid by the published schema, with the documented restrictions.

`compose-spec.json` is the Compose Specification's own schema (compose-spec/compose-spec, `schema/compose-spec.json`,
Apache-2.0), unchanged.
"""

import ast
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
GATEWAY_IMAGE = ROOT / "deploy/Dockerfile.gateway"
DOCKERFILES = sorted((ROOT / "deploy").glob("Dockerfile.*"))

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())
each_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


def option(name: str) -> str:
    """The value that follows a flag in the worker's command."""
    command = SERVICES["worker"]["command"]
    return str(command[command.index(name) + 1])


def instructions(dockerfile: Path) -> list[str]:
    """A Dockerfile's instructions, continued lines joined."""
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


# --- The schema -------------------------------------------------------------------------------------------------------


def schema_errors(document: object) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: make install")
    validator = jsonschema.Draft202012Validator(json.loads((ROOT / "tests/unit/compose-spec.json").read_text()))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_the_file_matches_the_published_schema() -> None:
    assert schema_errors(COMPOSE) == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"comand": ["fount"]}, id="unknown key"),
        pytest.param({"read_only": [True]}, id="wrong type"),
        pytest.param({"healthcheck": {"test": 1}}, id="wrong type inside"),
    ],
)
def test_the_schema_rejects_faults(fault: dict[str, Any]) -> None:
    assert len(schema_errors({"services": {"gateway": {"image": "fount-gateway", **fault}}})) > 0


# --- What is open to whom ---------------------------------------------------------------------------------------------


def test_only_the_gateway_is_published() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["gateway"]


def test_the_gateway_is_published_on_loopback_alone() -> None:
    assert SERVICES["gateway"]["ports"] == ["127.0.0.1:50051:50051", "127.0.0.1:8000:8000"]


def test_the_workers_network_leads_nowhere() -> None:
    assert COMPOSE["networks"]["workers"] == {"internal": True}


def test_only_the_gateway_can_reach_workers() -> None:
    members = {name for name, service in SERVICES.items() if "workers" in service["networks"]}
    assert members == {"worker", "gateway"}


def test_the_network_of_jobs_leads_nowhere() -> None:
    assert COMPOSE["networks"]["jobs"] == {"internal": True}


def test_only_the_gateway_and_runners_can_reach_the_database() -> None:
    members = {name for name, service in SERVICES.items() if "jobs" in service["networks"]}
    assert members == {"database", "runner", "gateway"}


@pytest.mark.parametrize("name", ["database", "runner"])
def test_services_that_use_the_jobs_database_are_on_no_other_network(name: str) -> None:
    assert SERVICES[name]["networks"] == ["jobs"]


def test_a_worker_is_on_no_other_network() -> None:
    assert SERVICES["worker"]["networks"] == ["workers"]


@each_service
def test_a_service_cannot_change_its_image_or_gain_rights(service: Mapping[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@each_service
def test_a_service_is_restarted(service: Mapping[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"


def test_every_service_that_listens_is_watched() -> None:
    watched = {name for name, service in SERVICES.items() if service["healthcheck"].get("test", [""])[0] == "CMD"}
    assert watched == set(SERVICES) - {"runner"}


@each_service
def test_a_service_has_limits(service: Mapping[str, Any]) -> None:
    assert service["pids_limit"] > 0
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


@each_service
def test_a_command_is_a_list_of_words(service: Mapping[str, Any]) -> None:
    assert all(isinstance(word, str) for word in service["command"])


@pytest.mark.parametrize("name", ["worker", "gateway", "runner"])
def test_settings_are_strings_under_one_prefix(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert all(key.startswith("FOUNT_") and isinstance(value, str) for key, value in environment.items())


# --- The parts fit together -------------------------------------------------------------------------------------------


def test_the_gateway_looks_for_its_worker_where_it_listens() -> None:
    ports = f"{option('--inference-port')}/{option('--management-port')}"
    assert SERVICES["gateway"]["environment"]["FOUNT_GATEWAY_TORCHSERVE"] == f"worker:{ports}"


def test_the_gateway_publishes_the_ports_it_listens_on() -> None:
    environment = SERVICES["gateway"]["environment"]
    published = [port.rsplit(":", 1)[1] for port in SERVICES["gateway"]["ports"]]
    assert published == [environment["FOUNT_GATEWAY_PORT"], environment["FOUNT_GATEWAY_HTTP_PORT"]]


def test_the_gateway_and_its_runners_meet_in_the_database() -> None:
    database, name = SERVICES["database"]["environment"], SERVICES["runner"]["environment"]["FOUNT_RUNNER_JOBS"]
    assert name == f"postgresql://{database['POSTGRES_USER']}@database/{database['POSTGRES_DB']}"
    assert SERVICES["gateway"]["environment"]["FOUNT_GATEWAY_JOBS"] == name


def test_evaluations_are_left_to_runners_elsewhere() -> None:
    assert SERVICES["gateway"]["environment"]["FOUNT_GATEWAY_RUNNERS"] == "0"


def test_a_runner_draws_from_the_gateway() -> None:
    port = SERVICES["gateway"]["environment"]["FOUNT_GATEWAY_PORT"]
    assert SERVICES["runner"]["environment"]["FOUNT_RUNNER_SERVER"] == f"gateway:{port}"


def test_a_runner_s_folder_is_a_volume_that_its_user_may_write() -> None:
    folder = SERVICES["runner"]["environment"]["FOUNT_RUNNER_WORK_DIR"]
    assert SERVICES["runner"]["volumes"] == [f"runner-work:{folder}"]
    assert any(f"install --directory --owner=10001 {folder}" in line for line in instructions(GATEWAY_IMAGE))


def test_the_database_does_not_run_as_root_and_keeps_its_rows_in_a_volume() -> None:
    assert SERVICES["database"]["user"] == "999:999"
    assert SERVICES["database"]["volumes"] == ["database:/var/lib/postgresql/data"]


def test_the_gateway_waits_for_its_database() -> None:
    assert SERVICES["gateway"]["depends_on"]["database"] == {"condition": "service_healthy"}


def test_the_worker_keeps_its_state_in_a_volume() -> None:
    assert f"worker-state:{option('--state')}" in SERVICES["worker"]["volumes"]


def test_the_worker_may_load_what_torchserve_unpacks() -> None:
    assert [mount for mount in SERVICES["worker"]["tmpfs"] if mount.startswith("/tmp:exec,")] != []


def test_prometheus_scrapes_the_gateway() -> None:
    scrape = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"][0]
    target = (scrape["dns_sd_configs"][0]["names"], scrape["dns_sd_configs"][0]["port"], scrape["metrics_path"])
    assert target == (["gateway"], 8000, "/metrics")


@pytest.mark.parametrize("name", ["worker", "gateway"])
def test_a_health_check_is_python_that_compiles(name: str) -> None:
    program, flag, code = SERVICES[name]["healthcheck"]["test"][1:]
    assert (program, flag) == ("python", "-c")
    ast.parse(code)


@each_service
def test_mounted_files_exist(service: Mapping[str, Any]) -> None:
    sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
    assert [source for source in sources if source.startswith("./") and not (ROOT / source).exists()] == []


@each_service
def test_named_volumes_are_declared(service: Mapping[str, Any]) -> None:
    sources = {volume.split(":")[0] for volume in service.get("volumes", [])}
    assert {source for source in sources if not source.startswith(".")} <= set(COMPOSE["volumes"])


# --- The images -------------------------------------------------------------------------------------------------------


def test_every_image_is_built_from_a_file_that_exists_or_has_a_version() -> None:
    built = {ROOT / service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service}
    fetched = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert built == set(DOCKERFILES)
    assert fetched == ["postgres:17.6-bookworm", "prom/prometheus:v3.5.0"]


@each_dockerfile
def test_an_image_does_not_run_as_root(dockerfile: Path) -> None:
    users = [line for line in instructions(dockerfile) if line.startswith("USER ")]
    assert users == ["USER 10001"]


@each_dockerfile
def test_an_image_forwards_signals_to_the_whole_group(dockerfile: Path) -> None:
    assert 'ENTRYPOINT ["tini", "-g", "--"]' in instructions(dockerfile)


@each_dockerfile
def test_an_image_installs_the_tested_versions(dockerfile: Path) -> None:
    installs = [line for line in instructions(dockerfile) if line.startswith("RUN pip install")]
    assert all("-c constraints.txt" in line for line in installs)
    assert len(installs) > 0


@each_dockerfile
def test_copied_files_exist_and_reach_the_build(dockerfile: Path) -> None:
    copies = [shlex.split(line)[1:-1] for line in instructions(dockerfile) if line.startswith("COPY ")]
    sources = {source for words in copies if not words[0].startswith("--from=") for source in words}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert sources <= let_in


def test_the_worker_image_s_own_command_is_the_composed_one() -> None:
    command = instructions(ROOT / "deploy/Dockerfile.worker")[-1].removeprefix("CMD ")
    assert json.loads(command) == SERVICES["worker"]["command"]
