"""Models that are loaded on demand by a real TorchServe: cold at the start, started by requests, stopped for others."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from fount.client import Client
from tests.e2e.processes import REPOSITORY, Served, run_fount, serving

NAMES = ("digits-cgan", "digits-cvae", "digits-vae")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("three")
    packed = run_fount("pack", *NAMES, "--model-store", str(REPOSITORY / "model_store"), "--out", str(out), home=out)
    assert packed.returncode == 0, packed.stderr
    return out


@pytest.fixture
def served(three: Path, home: Path) -> Iterator[Served]:
    with serving(three, home, "--load", "on-demand", "--max-loaded", "1") as running:
        yield running


def states(client: Client) -> dict[str, str]:
    return {model.name: model.state for model in client.models()}


def test_it_serves_three_models_with_room_for_one(served: Served) -> None:
    assert any("loading 3 models on demand, at most 1 model at once" in line for line in served.lines)
    seen: list[int] = []

    def draw(name: str) -> list[bytes]:
        with Client(served.server, timeout_s=120) as client:
            return [client.sample(name, count=3, seed=seed).tobytes() for seed in (1, 2, 1)]

    with Client(served.server) as client, ThreadPoolExecutor() as threads:
        assert states(client) == dict.fromkeys(NAMES, "cold")
        assert client.model("digits-cvae").labels == tuple("0123456789")
        assert served.workers() == []
        drawn = [threads.submit(draw, name) for name in NAMES * 2]
        while not all(each.done() for each in drawn):
            seen.append(sum(state == "ready" for state in states(client).values()))
            time.sleep(0.1)
        for first, second in zip(drawn[:3], drawn[3:], strict=True):
            assert first.result()[0] == first.result()[2] == second.result()[0]
    assert set(seen) == {0, 1}
    metrics = urlopen(f"http://127.0.0.1:{served.http_port}/metrics").read().decode()
    loads = sum(float(count) for count in re.findall(r"fount_model_load_seconds_count\{.*\} (\S+)", metrics))
    evictions = sum(float(count) for count in re.findall(r"fount_model_evictions_total\{.*\} (\S+)", metrics))
    assert loads - 1 <= evictions <= loads
    assert loads >= 3


def test_it_leaves_nothing_of_a_stopped_model(served: Served) -> None:
    with Client(served.server, timeout_s=120) as client:
        for name in NAMES:
            client.sample(name, count=1)
    assert len(served.workers()) == 1
    folder = Path(psutil.Process(served.java().pid).cwd())
    assert len(list(folder.glob("tmp/models/*/MAR-INF"))) == 1


def test_it_loads_again_what_was_in_use_when_torchserve_ended(served: Served) -> None:
    with Client(served.server, timeout_s=120) as client:
        before = client.sample("digits-vae", count=5, seed=1)
        served.java().kill()
        assert client.sample("digits-vae", count=5, seed=1).tobytes() == before.tobytes()


def test_a_required_model_is_loaded_from_the_start(three: Path, home: Path) -> None:
    with (
        serving(three, home, "--max-loaded", "1", "--require", "digits-vae") as served,
        Client(served.server) as client,
    ):
        assert states(client) == {"digits-cgan": "cold", "digits-cvae": "cold", "digits-vae": "ready"}
