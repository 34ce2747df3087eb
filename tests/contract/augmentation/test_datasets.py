"""DatasetService: listing, permissions, and data sets that cannot be read; and the command `fount datasets`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from fount.cli.main import main
from fount.readers import DatasetSource
from fount.v1 import dataset_pb2, dataset_pb2_grpc
from service.caller import Caller
from service.config import GatewayConfig
from service.datasets import Datasets, DatasetSettings
from service.errors import DatasetUnreadable
from service.gateway import Gateway
from service.workers.memory import MemoryPool
from tests.contract.gateways import Running, fields


class OnlyToys:
    """Callers who may see the data set `toys`, and no other."""

    def identify(self, peer: str, metadata: tuple[tuple[str, str | bytes], ...]) -> Caller:
        return Caller(subject="kim", grants=frozenset({"dataset:toys"}))


@pytest.fixture
def config(tmp_path: Path) -> GatewayConfig:
    arrays = {
        "images": np.zeros((4, 3, 2), np.uint8),
        "labels": np.array([0, 1, 1, 1]),
        "groups": np.array([0, 0, 0, 1]),
    }
    np.savez(tmp_path / "toys.npz", **arrays)
    toys = DatasetSettings(
        source=DatasetSource(name="toys", path=tmp_path / "toys.npz", licence="CC0"), classifier="toy"
    )
    pale = DatasetSettings(source=DatasetSource(name="pale", path=tmp_path / "toys.npz", channels=3))
    lost = DatasetSettings(source=DatasetSource(name="lost", path=tmp_path / "lost.npz", format="npz"))
    return GatewayConfig(port=0, http_port=0, datasets=(toys, lost, pale))


@pytest.fixture
def stub(running: Running) -> dataset_pb2_grpc.DatasetServiceStub:
    return dataset_pb2_grpc.DatasetServiceStub(running.channel)


@pytest.fixture
async def restricted(config: GatewayConfig) -> AsyncIterator[dataset_pb2_grpc.DatasetServiceStub]:
    gateway = Gateway(MemoryPool(), config, OnlyToys())
    await gateway.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        yield dataset_pb2_grpc.DatasetServiceStub(channel)
    await gateway.stop(grace_s=0)


async def refused(stub: dataset_pb2_grpc.DatasetServiceStub, name: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.GetDataset(dataset_pb2.GetDatasetRequest(name=name))
    return error.value


async def test_every_data_set_is_listed_by_name(stub) -> None:
    listed = (await stub.ListDatasets(dataset_pb2.ListDatasetsRequest())).datasets
    formats = [("digits", "built-in"), ("lost", "npz"), ("pale", "npz"), ("shapes64", "built-in"), ("toys", "npz")]
    assert [(each.name, each.format) for each in listed] == formats


async def test_digits_are_described(stub) -> None:
    digits = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="digits"))).dataset
    assert [(split.name, split.rows) for split in digits.splits] == [("train", 1442), ("test", 355)]
    assert (list(digits.sample_spec.dims), digits.classifier) == ([8, 8, 1], "digits-classifier")
    assert digits.digest == "sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


async def test_shapes_are_described(stub) -> None:
    shapes = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="shapes64"))).dataset
    assert [(split.name, split.rows) for split in shapes.splits] == [("train", 20_000), ("test", 4000)]
    assert (list(shapes.sample_spec.dims), shapes.classifier) == ([64, 64, 3], "shapes-classifier")
    assert list(shapes.classes) == ["circle", "square", "triangle", "star", "cross", "ring"]


async def test_classes_and_groups_are_counted(stub) -> None:
    toys = (await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="toys"))).dataset
    assert (list(toys.splits[0].class_counts), list(toys.splits[0].group_counts)) == ([1, 3], [3, 1])
    assert (list(toys.groups), toys.licence, toys.classifier) == (["0", "1"], "CC0", "toy")


async def test_the_background_of_transparent_pixels_is_described(stub) -> None:
    found = [(await stub.GetDataset(dataset_pb2.GetDatasetRequest(name=name))).dataset for name in ("toys", "pale")]
    assert [each.background for each in found] == ["", "white"]


async def test_an_unreadable_data_set_is_listed_with_its_problem(stub) -> None:
    listed = (await stub.ListDatasets(dataset_pb2.ListDatasetsRequest())).datasets
    assert listed[1].problem == "data set lost: lost.npz does not exist; give the file or folder of lost"
    assert listed[1].digest == ""


async def test_opening_an_unreadable_data_set_is_a_failed_precondition(stub) -> None:
    error = await refused(stub, "lost")
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details().startswith("data set lost: lost.npz does not exist")


async def test_only_the_log_has_the_folder_of_a_data_set(
    stub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert str(tmp_path) not in (await refused(stub, "lost")).details()
    assert str(tmp_path) in caplog.text


async def test_a_corrected_file_needs_no_restart(stub, tmp_path: Path) -> None:
    await refused(stub, "lost")
    (tmp_path / "toys.npz").rename(tmp_path / "lost.npz")
    assert (await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="lost"))).dataset.splits[0].rows == 4


async def test_an_unknown_name_is_not_found_and_the_nearest_is_named(stub) -> None:
    error = await refused(stub, "digit")
    assert (error.code(), fields(error)) == (grpc.StatusCode.NOT_FOUND, ["name"])
    assert "did you mean 'digits'?" in error.details()


async def test_an_empty_name_is_invalid(stub) -> None:
    error = await refused(stub, "")
    assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, ["name"])


async def test_a_caller_sees_granted_data_sets_only(restricted) -> None:
    listed = (await restricted.ListDatasets(dataset_pb2.ListDatasetsRequest())).datasets
    assert [each.name for each in listed] == ["toys"]


@pytest.mark.parametrize("name", ["digits", "nobody-knows"])
async def test_without_the_grant_a_name_is_denied_known_or_not(restricted, name: str) -> None:
    assert (await refused(restricted, name)).code() is grpc.StatusCode.PERMISSION_DENIED


# --- The catalogue ----------------------------------------------------------------------------------------------------


async def test_simultaneous_callers_share_one_reading(config: GatewayConfig) -> None:
    datasets = Datasets(config.datasets)
    first, second = await asyncio.gather(datasets.open("toys"), datasets.open("toys"))
    assert first is second


async def test_a_cancelled_caller_does_not_cancel_the_reading(config: GatewayConfig) -> None:
    datasets = Datasets(config.datasets)
    cancelled, waiting = (asyncio.ensure_future(datasets.open("toys")) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert len((await waiting).splits["train"]) == 4


async def test_a_broken_row_is_found_on_opening(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "0.png").write_bytes(b"not an image")
    datasets = Datasets([DatasetSettings(source=DatasetSource(name="ants", path=tmp_path))])
    with pytest.raises(DatasetUnreadable, match=r"^data set ants: ant/0.png is not a supported image"):
        await datasets.open("ants")


async def test_a_linked_folder_is_named_without_its_target(tmp_path: Path) -> None:
    (tmp_path / "real" / "ant").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "ant" / "0.png").symlink_to("/etc/hostname")
    datasets = Datasets([DatasetSettings(source=DatasetSource(name="ants", path=tmp_path / "link"))])
    with pytest.raises(DatasetUnreadable) as refused:
        await datasets.open("ants")
    assert str(tmp_path) not in str(refused.value)


# --- The command ------------------------------------------------------------------------------------------------------


async def command(running: Running, *arguments: str):
    invoke = CliRunner().invoke
    server = f"127.0.0.1:{running.gateway.port}"
    return await asyncio.to_thread(invoke, main, ["datasets", *arguments, "--server", server])


async def test_the_command_lists_data_sets(running: Running) -> None:
    lines = (await command(running)).stdout.splitlines()
    assert lines[0].split() == ["DATA", "SET", "FORMAT", "CLASSES", "SHAPE", "ROWS", "CLASSIFIER"]
    assert " ".join(lines[1].split()).startswith("digits built-in 10 8 × 8 × 1 train 1,442, test 355 digits-classifier")
    assert "lost.npz does not exist" in lines[2]


@pytest.mark.parametrize("arguments", [(), ("digits",)], ids=["list", "one"])
async def test_the_command_marks_a_classifier_that_is_not_served(running: Running, arguments: tuple[str, ...]) -> None:
    lines = (await command(running, *arguments)).stdout.splitlines()
    assert any(line.endswith("digits-classifier (not in `fount models`)") for line in lines)


async def test_the_command_does_not_mark_a_classifier_that_is_served(running: Running) -> None:
    assert "Classifier   toy\n" in (await command(running, "toys")).stdout


async def test_the_command_shows_a_data_set_with_its_classes(running: Running) -> None:
    lines = [" ".join(line.split()) for line in (await command(running, "toys")).stdout.splitlines()]
    assert lines[lines.index("CLASS TRAIN") :] == [
        "CLASS TRAIN",
        "0 1",
        "1 3",
        "all 4",
        "",
        "GROUP TRAIN",
        "0 3",
        "1 1",
        "all 4",
    ]


async def test_the_command_writes_json(running: Running) -> None:
    message = json.loads((await command(running, "toys", "--json")).stdout)
    assert (message["name"], message["splits"][0]["class_counts"]) == ("toys", ["1", "3"])


async def test_the_command_reports_an_unknown_name(running: Running) -> None:
    result = await command(running, "digit")
    assert (result.exit_code, "did you mean 'digits'?" in result.stderr) == (1, True)
    assert "`fount datasets` (ListDatasets) lists them" in result.stderr


async def test_the_command_shows_the_background(running: Running) -> None:
    lines = (await command(running, "pale")).stdout.splitlines()
    assert "Background   white" in lines
