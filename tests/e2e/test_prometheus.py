"""A real Prometheus scrapes the gateway."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import psutil
import pytest

from fount import Client
from tests.e2e.processes import Served
from tests.e2e.requirements import need_program


def query(port: int, expression: str) -> list:
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]["result"]
    except (urllib.error.URLError, ConnectionError):
        return []


def test_prometheus_reads_the_series(served: Served, tmp_path: Path) -> None:
    program = need_program("prometheus")
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs: [{job_name: fount, scrape_interval: 1s, static_configs: "
        f"[{{targets: ['127.0.0.1:{served.http_port}']}}]}}]\n"
    )
    with Client(served.server) as client:
        client.sample("digits-vae", count=10)
    process = subprocess.Popen(
        [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         "--web.listen-address=127.0.0.1:0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            sockets = psutil.Process(process.pid).net_connections("tcp")
            ports = [each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN]
            found = query(ports[0], 'fount_samples_total{model="digits-vae"}') if ports else []
            if found and float(found[0]["value"][1]) >= 10:
                return
            time.sleep(0.3)
        pytest.fail("Prometheus did not see fount_samples_total")
    finally:
        process.terminate()
        process.wait(15)
