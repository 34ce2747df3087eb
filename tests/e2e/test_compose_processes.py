"""The commands and environments of docker-compose.yml, started as processes: knowing they work needs no engine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from fount import Client
from fount.errors import FountError, ServerUnavailable
from tests.e2e.processes import REPOSITORY, gateway, torchserve

SERVICES = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]


def test_the_gateway_and_the_worker_of_the_compose_file_serve(archives: Path, tmp_path: Path) -> None:
    worker, front = SERVICES["worker"], SERVICES["gateway"]
    assert worker["command"][:3] == ["python", "-m", "service.workers.torchserve.run"]
    assert front["command"] == ["fount", "gateway"]
    host, ports = front["environment"]["FOUNT_GATEWAY_TORCHSERVE"].split(":")
    assert (host, ports) == ("worker", "7070/7071")
    # Later options win, so paths, ports and addresses become those of this machine; all else is the file's own.
    with torchserve(archives, tmp_path, worker["environment"], worker["command"][3:]) as address:
        kept = {key: value for key, value in front["environment"].items() if "TORCHSERVE" not in key}
        with gateway(tmp_path, address, extra=kept | {"FOUNT_GATEWAY_HOST": "127.0.0.1"}) as served:
            assert len(draw(served.server)) == 3


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
    deadline = time.monotonic() + timeout_s
    with Client(server) as client:
        while True:
            try:
                return client.sample("digits-vae", count=3)
            except FountError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
