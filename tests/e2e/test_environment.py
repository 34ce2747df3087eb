"""A server whose working folder has modules of our names, and whose environment has proxies, secrets and links."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from fount import Client
from tests.e2e.processes import run_fount, serving
from tests.handlers.planted import plant

ENVIRONMENT = {
    "http_proxy": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "DATABASE_URL": "postgresql://u:secret@db/x",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "FOUNT_SERVE_PORT": "tcp://10.0.0.1:50051",
}
CHECK = "import os; assert not {'DATABASE_URL', 'AWS_SECRET_ACCESS_KEY'} & os.environ.keys()"
START_S = 30.0


@pytest.mark.slow
def test_a_server_works_in_a_hostile_folder_and_environment(tmp_path: Path) -> None:
    folder = plant(tmp_path / "store" / "planted", before=CHECK)
    assert run_fount("check", str(folder), home=tmp_path).returncode == 0
    packed = run_fount("pack", str(folder), "--out", str(tmp_path / "archives"), home=tmp_path)
    assert packed.returncode == 0, packed.stderr
    for name in ("random", "service", "handlers", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    with serving(tmp_path / "archives", tmp_path, extra=ENVIRONMENT, runners=1) as served:
        with Client(served.server) as client:
            assert client.sample("planted", label=0, count=4, seed=1).shape == (4, 4, 4, 1)
        ends = time.monotonic() + START_S
        while not any("Fount runs evaluations" in line for line in served.lines):
            assert time.monotonic() < ends, served.lines
            time.sleep(0.1)
        ready = build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{served.http_port}/readyz", timeout=5)
        assert ready.read() == b"ready\n"
    assert any("FOUNT_SERVE_PORT=tcp://10.0.0.1:50051 is ignored" in line for line in served.lines)
