"""Reading data sets: refusals are remembered and keep no memory, and a reading ends with its gateway."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import grpc
import numpy as np
import pytest
from PIL import Image

from fount.cancellation import check_cancelled
from fount.readers import DataError, DatasetSource, read_dataset
from fount.v1 import dataset_pb2, dataset_pb2_grpc
from service.config import GatewayConfig
from service.datasets import Datasets, DatasetSettings, catalog
from service.errors import DatasetUnreadable
from service.threads import run_in_thread
from service.workers.memory import MemoryPool
from tests.contract.gateways import serving


@pytest.fixture
def config(tmp_path: Path) -> GatewayConfig:
    """A gateway with a data set whose file does not exist."""
    lost = DatasetSettings(source=DatasetSource(name="lost", path=tmp_path / "lost.npz", format="npz"))
    return GatewayConfig(port=0, http_port=0, datasets=(lost,))


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of the data set for every reading."""
    readings: list[str] = []
    monkeypatch.setattr(catalog, "read_dataset", lambda source: readings.append(source.name) or read_dataset(source))
    return readings


async def refuse(datasets: Datasets, name: str = "lost") -> DatasetUnreadable:
    with pytest.raises(DatasetUnreadable) as refused:
        await datasets.open(name)
    return refused.value


async def test_a_path_that_does_not_exist_is_logged_at_the_start(
    config: GatewayConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Datasets(config.datasets)
    assert f"data set lost: there is no {tmp_path}/lost.npz yet; it is looked for at the first request" in caplog.text


async def test_a_path_that_exists_is_not_logged(
    config: GatewayConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lost.npz").touch()
    Datasets(config.datasets)
    assert not caplog.records


async def test_refused_files_are_not_read_again(config: GatewayConfig, readings: list[str], tmp_path: Path) -> None:
    (tmp_path / "lost.npz").write_bytes(b"not a zip")
    datasets = Datasets(config.datasets)
    assert str(await refuse(datasets)) == str(await refuse(datasets))
    assert readings == ["lost"]


@pytest.mark.parametrize("change", [lambda file: file.write_bytes(b"PK"), lambda file: os.utime(file, (1, 1))])
async def test_a_refused_file_that_changed_is_read_again(
    config: GatewayConfig, readings: list[str], tmp_path: Path, change
) -> None:
    (tmp_path / "lost.npz").write_bytes(b"not a zip")
    datasets = Datasets(config.datasets)
    await refuse(datasets)
    change(tmp_path / "lost.npz")
    await refuse(datasets)
    assert readings == ["lost", "lost"]


async def test_a_file_added_to_a_refused_folder_is_noticed(readings: list[str], tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    datasets = Datasets([DatasetSettings(source=DatasetSource(name="ants", path=tmp_path))])
    await refuse(datasets, "ants")
    Image.new("L", (2, 2)).save(tmp_path / "ant" / "0.png")
    assert len((await datasets.open("ants")).splits["train"]) == 1


async def test_a_failure_of_the_system_is_tried_again(config: GatewayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = []

    def fail(source: DatasetSource):
        readings.append(source.name)
        raise DataError("it cannot be read: too many open files") from OSError(24, "too many open files")

    monkeypatch.setattr(catalog, "read_dataset", fail)
    datasets = Datasets(config.datasets)
    await refuse(datasets)
    await refuse(datasets)
    assert readings == ["lost", "lost"]


async def test_a_refusal_keeps_no_images(config: GatewayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []

    def decompress() -> None:
        images = np.zeros(10_000, np.uint8)
        kept.append(weakref.ref(images))
        raise OSError("it ends early")

    def fail(source: DatasetSource):
        images = np.zeros(10_000, np.uint8)
        kept.append(weakref.ref(images))
        try:
            decompress()
        except OSError as error:
            raise DataError("damaged") from error

    monkeypatch.setattr(catalog, "read_dataset", fail)
    refusal = await refuse(Datasets(config.datasets))
    assert str(refusal) == "data set lost: damaged"
    assert [each() for each in kept] == [None, None]


# --- Ending -----------------------------------------------------------------------------------------------------------


@dataclass
class Endless:
    """A reading that goes on until it is cancelled."""

    started: Event = field(default_factory=Event)
    ended: Event = field(default_factory=Event)

    def __call__(self, source: DatasetSource) -> None:
        self.started.set()
        try:
            while not self.ended.wait(0.001):
                check_cancelled()
        finally:
            self.ended.set()


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    reading = Endless()
    monkeypatch.setattr(catalog, "read_dataset", reading)
    yield reading
    reading.ended.set()


async def test_stopping_a_gateway_ends_the_reading_of_its_data_sets(config: GatewayConfig, endless: Endless) -> None:
    async with serving(MemoryPool(), config=config) as running:
        stub = dataset_pb2_grpc.DatasetServiceStub(running.channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="lost"), timeout=0.2)
        assert (endless.started.is_set(), endless.ended.is_set()) == (True, False)
    assert await asyncio.to_thread(endless.ended.wait, 10)


async def test_readings_take_none_of_the_threads_of_other_calls(endless: Endless, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    datasets = Datasets([DatasetSettings(source=DatasetSource(name="ants", path=tmp_path))])
    opening = asyncio.create_task(datasets.open("ants"))
    assert await asyncio.wait_for(asyncio.to_thread(endless.started.wait, 10), 20)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "answered"), 10) == "answered"
    await datasets.close()
    assert opening.cancelled() or opening.cancel() or opening.done()


async def test_a_thread_ends_when_its_caller_is_gone(endless: Endless) -> None:
    caller = asyncio.create_task(run_in_thread(endless, DatasetSource(name="ants")))
    await asyncio.to_thread(endless.started.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await asyncio.to_thread(endless.ended.wait, 10)
