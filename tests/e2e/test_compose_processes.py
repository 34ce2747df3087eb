"""The commands and environments of docker-compose.yml, started as processes: knowing they work needs no engine."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from fount import Client
from fount.errors import FountError, ServerUnavailable
from tests.e2e.processes import FOUNT, REPOSITORY, environment, gateway, torchserve

SERVICES = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]


@pytest.mark.slow
def test_the_gateway_and_the_worker_of_the_compose_file_serve(archives: Path, tmp_path: Path) -> None:
    worker, front = SERVICES["worker"], SERVICES["gateway"]
    assert worker["command"][:4] == ["python", "-P", "-m", "service.workers.torchserve.run"]
    assert front["command"] == ["fount", "gateway"]
    host, ports = front["environment"]["FOUNT_GATEWAY_TORCHSERVE"].split(":")
    assert (host, ports) == ("worker", "7070/7071")
    # Later options win, so paths, ports and addresses become those of this machine; all else is the file's own.
    with torchserve(archives, tmp_path, worker["environment"], worker["command"][4:]) as address:
        kept = {key: value for key, value in front["environment"].items() if "TORCHSERVE" not in key}
        own = {"FOUNT_GATEWAY_HOST": "127.0.0.1", "FOUNT_GATEWAY_JOBS": f"sqlite:///{tmp_path}/jobs.db"}
        with gateway(tmp_path, address, extra=kept | own) as served:
            assert len(draw(served.server)) == 3
            connections = psutil.Process(served.process.pid).net_connections("tcp")
            assert any(each.raddr and each.raddr.port in range(7100, 7200) for each in connections)  # a worker's own


@pytest.mark.slow
def test_the_runner_of_the_compose_file_works_on_what_the_gateway_is_asked(archives: Path, tmp_path: Path) -> None:
    worker, front, runner = SERVICES["worker"], SERVICES["gateway"], SERVICES["runner"]
    jobs = f"sqlite:///{tmp_path}/jobs.db"
    asked = {"FOUNT_GATEWAY_JOBS": jobs, "FOUNT_GATEWAY_RUNNERS": front["environment"]["FOUNT_GATEWAY_RUNNERS"]}
    with (
        torchserve(archives, tmp_path, worker["environment"], worker["command"][4:]) as address,
        gateway(tmp_path, address, extra=asked) as served,
    ):
        own = {"FOUNT_RUNNER_JOBS": jobs, "FOUNT_RUNNER_SERVER": served.server, "FOUNT_RUNNER_WORK_DIR": "work"}
        assert own.keys() == runner["environment"].keys()
        process = subprocess.Popen([FOUNT, *runner["command"][1:]], env=environment(tmp_path, own), cwd=tmp_path)
        try:
            with Client(served.server) as client:
                made = retrying(lambda: client.evaluate("digits-cvae", count=100, seed=1, panels=["label-fidelity"]))
                *_, last = client.watch_evaluation(made.id)
        finally:
            process.terminate()
            status = process.wait(30)
    assert (last.state, last.state_reason, status) == ("succeeded", "", 0)
    assert "label_agreement" in {metric.name for metric in last.metrics}


@pytest.mark.slow
def test_a_gateway_reads_the_tokens_of_a_torchserve_that_keeps_them(archives: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "s" / "torchserve" / "key_file.json"
    with (
        torchserve(archives, tmp_path, {}, ()) as address,
        gateway(tmp_path, address, token_file=key_file) as served,
    ):
        assert key_file.stat().st_mode & 0o077 == 0
        assert len(draw(served.server)) == 3


@pytest.mark.slow
def test_a_gateway_without_the_tokens_says_so(archives: Path, tmp_path: Path) -> None:
    with torchserve(archives, tmp_path, {}, ()) as address, gateway(tmp_path, address) as served:
        with pytest.raises(ServerUnavailable):
            draw(served.server, timeout_s=3)
        assert any("Token Authorization failed" in line for line in served.lines)


def draw(server: str, timeout_s: float = 60):
    with Client(server, timeout_s=timeout_s) as client:
        return retrying(lambda: client.sample("digits-vae", count=3), timeout_s)


def retrying(ask, timeout_s: float = 120):
    """Ask until there is an answer: models load."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except FountError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
