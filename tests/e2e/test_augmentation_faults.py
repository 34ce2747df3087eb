"""Pulls and exports on the real stack while something is killed, and a client that pushes and does not read."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import yaml

from fount import Client
from fount.augmentation.plan import PlanInfo
from fount.v1 import augmentation_pb2, augmentation_pb2_grpc
from tests.contract.exports import contents, wait_for_parts
from tests.e2e.augmenting import EVERYTHING, Augmented, columns_of, pulled, same, second_gateway
from tests.e2e.faults import alive, until
from tests.e2e.processes import FOUNT, environment, run_fount, serving

MEBIBYTE = 1 << 20
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def client(augmented: Augmented) -> Iterator[Client]:
    with Client(augmented.server) as client:
        yield client


@pytest.fixture(scope="module")
def many(client: Client) -> PlanInfo:
    """20 188 rows: far more than is made, and on its way, ahead of a client."""
    return client.plan(EVERYTHING | {"target": {"factor": 14}})


# --- TorchServe -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pull_outlives_a_torchserve_killed_in_the_middle_of_it(
    augmented: Augmented, client: Client, many: PlanInfo
) -> None:
    whole, java, workers = pulled(client, many, shards=1), augmented.served.java(), len(alive(augmented.served))
    batches, arrivals = [], []
    for batch in client.pull(many, shards=1, provenance="full"):
        if not batches:
            java.kill()
        batches.append(batch)
        arrivals.append(time.monotonic())
    longest = max(after - before for before, after in itertools.pairwise(arrivals))
    print(f"the stream stood still for {longest:.1f} s, {len(batches)} batches")  # noqa: T201
    assert same(columns_of(batches), whole)
    assert longest > 1  # rows had to be made by the TorchServe that arrivals after
    assert augmented.served.java().pid != java.pid
    until(lambda: len(alive(augmented.served)) == workers, 60)


# --- Exports ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, augmented: Augmented) -> Path:
    """A folder with a plan file, and its export in 32 parts, made without a break."""
    place = tmp_path_factory.mktemp("exports")
    (place / "plan.yaml").write_text(yaml.safe_dump(EVERYTHING | {"target": {"factor": 7}}))
    ended = run_fount(*pull("whole"), "--server", augmented.server, home=place)
    assert ended.returncode == 0, ended.stderr
    return place


def pull(out: str) -> list[str]:
    return ["pull", "plan.yaml", "--out", out, "--format", "npz", "--shards", "32", "--jobs", "2", "--timeout", "2"]


@contextmanager
def pulling(exports: Path, out: str, server: str) -> Iterator[subprocess.Popen[str]]:
    """`fount pull` as a process, until the block ends."""
    process = subprocess.Popen(
        [FOUNT, *pull(out), "--server", server], cwd=exports, env=environment(exports), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def goes_on(exports: Path, out: str, server: str) -> bool:
    """Run the same command again; whether the files are those of an export without a break."""
    assert not (exports / out / "manifest.json").exists()
    kept = parts(exports / out)
    assert 0 < kept < 32
    print(f"{kept} of 32 parts were kept")  # noqa: T201
    ended = run_fount(*pull(out), "--server", server, home=exports)
    assert ended.returncode == 0, ended.stderr
    return contents(exports / out) == contents(exports / "whole")


def parts(folder: Path) -> int:
    return (folder / ".fount" / "journal.jsonl").read_bytes().count(b"\n")


@pytest.mark.slow
@pytest.mark.parametrize("finished", [pytest.param(1, marks=SLOW), 7, pytest.param(20, marks=SLOW)])
def test_an_export_killed_at_any_moment_goes_on(exports: Path, augmented: Augmented, finished: int) -> None:
    out = f"killed-at-{finished}"
    with pulling(exports, out, augmented.server) as process:
        wait_for_parts(exports / out, finished, process)
        process.kill()
    assert goes_on(exports, out, augmented.server)


@pytest.mark.slow
def test_an_export_outlives_a_gateway_killed_and_started_again(
    exports: Path, augmented: Augmented, tmp_path: Path
) -> None:
    with second_gateway(augmented, tmp_path) as served, pulling(exports, "gateway", served.server) as process:
        wait_for_parts(exports / "gateway", 5, process)
        served.process.kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "Finished files remain: run the same command again to resume."
    with second_gateway(augmented, tmp_path) as served:
        assert goes_on(exports, "gateway", served.server)


@pytest.mark.slow
def test_an_export_killed_over_and_over_is_whole_in_the_end(exports: Path, augmented: Augmented) -> None:
    moments, kills = np.random.default_rng(9), 0
    while not (exports / "over-and-over" / "manifest.json").exists():
        with pulling(exports, "over-and-over", augmented.server) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.6, 1.6))
            kills += process.poll() is None
    print(f"{kills} kills")  # noqa: T201
    assert kills > 1
    ended = run_fount(*pull("over-and-over"), "--server", augmented.server, home=exports)
    assert "Already complete" in ended.stdout
    assert contents(exports / "over-and-over") == contents(exports / "whole")


@pytest.mark.slow
def test_an_export_outlives_a_whole_stack_killed_and_started_again_with_its_state(
    exports: Path, augmented: Augmented, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its key is that of the state folder."""
    home, archives = tmp_path_factory.mktemp("stack"), archives_of(augmented)
    state = ("--state-dir", str(home / "state"))
    with serving(archives, home, *state) as served, pulling(exports, "stack", served.server) as process:
        wait_for_parts(exports / "stack", 5, process)
        served.process.kill()
        assert process.wait(60) == 1
    with serving(archives, home, *state) as served:
        assert goes_on(exports, "stack", served.server)


def archives_of(augmented: Augmented) -> Path:
    command = psutil.Process(augmented.served.process.pid).cmdline()
    return Path(command[command.index("--archives") + 1])


# --- A flood ----------------------------------------------------------------------------------------------------------

SIDE, ROWS = 64, 256
VARIANTS = 4


class Flood:
    """Requests of 1 MiB each, as fast as they are taken."""

    def __init__(self, most: int) -> None:
        self.sent, self._most = 0, most
        self._pixels = np.random.default_rng(2).integers(0, 256, ROWS * SIDE * SIDE, np.uint8).tobytes()
        self.ended = threading.Event()

    def __iter__(self) -> Iterator[augmentation_pb2.AugmentRequest]:
        config = augmentation_pb2.AugmentConfig(height=SIDE, width=SIDE, channels=1, variants=VARIANTS, seed=3)
        yield augmentation_pb2.AugmentRequest(config=config)
        rows = augmentation_pb2.AugmentRows(count=ROWS, data=self._pixels)
        while self.sent < self._most and not self.ended.is_set():
            self.sent += 1
            yield augmentation_pb2.AugmentRequest(rows=rows)

    def wait_until_ready(self) -> None:
        """Wait until nothing more is taken."""
        before = -1
        while before != self.sent:
            before = self.sent
            time.sleep(1.0)


def test_a_client_that_pushes_and_does_not_read_is_read_no_further(augmented: Augmented) -> None:
    gateway, flood = psutil.Process(augmented.served.process.pid), Flood(most=1000)
    before = gateway.memory_info().rss
    with grpc.insecure_channel(augmented.server) as channel:
        call = augmentation_pb2_grpc.AugmentationServiceStub(channel).Augment(iter(flood))
        flood.wait_until_ready()
        held, growth = flood.sent, (gateway.memory_info().rss - before) / MEBIBYTE
        print(f"{held} MiB were taken of a client that does not read; the gateway grew by {growth:.0f} MiB")  # noqa: T201
        assert held < 64
        assert growth < 128
        assert next(call).WhichOneof("kind") == "header"
        due = 0
        while due < 3 * ROWS * VARIANTS:
            samples = next(call).chunk.samples
            assert samples.start_index == due
            due += samples.count
        flood.ended.set()
        call.cancel()
