"""Models that are loaded on demand by a real TorchServe: cold at the start, started by requests, stopped for others."""

from __future__ import annotations

import re
import shutil
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_required_model_is_loaded_from_the_start(three: Path, home: Path) -> None:
    with (
        serving(three, home, "--max-loaded", "1", "--require", "digits-vae") as served,
        Client(served.server) as client,
    ):
        assert states(client) == {"digits-cgan": "cold", "digits-cvae": "cold", "digits-vae": "ready"}


PLAN = """
dataset: digits
seed: 1
target: {balance: largest}
mix: {transformed: 1, synthesised: 1}
synthesis: {model: digits-cvae}
"""


@pytest.mark.slow
def test_work_with_several_models_ends_with_room_for_one(tmp_path: Path, home: Path) -> None:
    names = ("digits-classifier", "digits-cvae", "transforms")
    archives, plan = tmp_path / "archives", tmp_path / "plan.yaml"
    packed = run_fount(
        "pack", *names, "--model-store", str(REPOSITORY / "model_store"), "--out", str(archives), home=home
    )
    assert packed.returncode == 0, packed.stderr
    plan.write_text(PLAN)
    with serving(archives, home, "--max-loaded", "1", runners=1) as served:

        def fount(*arguments: str) -> str:
            done = run_fount(*arguments, "--server", served.server, home=home)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "cold" in fount("models")
        fount("pull", str(plan), "--out", str(tmp_path / "rows"))
        fount("augment", "--dataset", "digits", "--variants", "2", "--out", str(tmp_path / "variants.png"))
        assert "Overall" in fount("evaluate", "digits-cvae", "--count", "500")


@pytest.mark.slow
def test_a_hundred_models_are_listed_within_seconds(tmp_path: Path, home: Path) -> None:
    store, archives = tmp_path / "store", tmp_path / "archives"
    for number in range(100):
        folder = store / f"m{number:02d}"
        shutil.copytree(REPOSITORY / "model_store/digits-vae", folder)
        card = (folder / "model.yaml").read_text()
        (folder / "model.yaml").write_text(card.replace("name: digits-vae", f"name: {folder.name}", 1))
    packed = run_fount("pack", "--all", "--model-store", str(store), "--out", str(archives), home=home)
    assert packed.returncode == 0, packed.stderr
    start_s = time.monotonic()
    with serving(archives, home) as served, Client(served.server) as client:
        assert time.monotonic() - start_s < 25
        assert len(states(client)) == 100
        assert set(states(client).values()) == {"cold"}
        assert client.sample("m42", count=3, seed=1).shape == (3, 8, 8, 1)
        assert len(served.workers()) == 1
