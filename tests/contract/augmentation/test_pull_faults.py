"""Pulls that fail: wrong fields, lost workers, cancelled streams, overloaded gateways."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest

from fount.v1 import augmentation_pb2 as pb
from tests.contract.augmenting import GENERATOR, augmenting, give_plan, rows_of
from tests.waiting import until, until_constant

FULL = pb.PROVENANCE_LEVEL_FULL
OUT_OF_BAG = pb.PullDatasetRequest.PART_OUT_OF_BAG


async def rest(call) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


BAD = [
    pytest.param({"ticket": b""}, {"ticket"}, id="no ticket"),
    pytest.param({"ticket": b"forged"}, {"ticket"}, id="a forged ticket"),
    pytest.param({"shard": 1}, {"shard"}, id="a shard that was not planned"),
    pytest.param({"shard": 3, "shards": 3}, {"shard"}, id="a shard beyond the last"),
    pytest.param({"shards": 65537}, {"shards"}, id="too many shards"),
    pytest.param({"start_index": 151}, {"start_index"}, id="a start past the end"),
    pytest.param({"shard": 1, "shards": 3, "start_index": 49}, {"start_index"}, id="a start before the shard"),
    pytest.param({"end_index": 151}, {"end_index"}, id="an end past the end"),
    pytest.param({"start_index": 20, "end_index": 19}, {"end_index"}, id="an end before the start"),
    pytest.param({"provenance": 9}, {"provenance"}, id="no such provenance"),
    pytest.param({"part": 9}, {"part"}, id="no such part"),
    pytest.param({"part": OUT_OF_BAG}, {"part"}, id="out of bag without a bootstrap"),
    pytest.param({"ticket": b"", "provenance": 9, "part": 9}, {"ticket", "provenance", "part"}, id="everything"),
]


@pytest.mark.parametrize(("fields", "named"), BAD)
async def test_every_wrong_field_is_named(service, fields, named) -> None:
    error = await service.refused(**({"ticket": b"plan"} | fields))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert {each.split(":")[0] for each in error.details().split("; ") if ":" in each} >= named


async def test_a_lost_worker_changes_no_row(service) -> None:
    _, whole = await service.pull()
    service.pool.faults.lose_calls = 2
    _, again = await service.pull()
    assert rows_of(again) == rows_of(whole)


async def test_workers_of_another_digest_end_the_stream_with_the_retired_model(tmp_path) -> None:
    async with augmenting(tmp_path, worker_wait_s=0.2) as service:
        give_plan(service, counts={(0, 4): 100_000})
        call = service.stub.PullDataset(pb.PullDatasetRequest(ticket=b"other"), timeout=20)
        await call.read()
        service.pool.models[0] = replace(GENERATOR, key=replace(GENERATOR.key, digest="sha256:" + "0" * 64))
        service.pool.set_up(up=True)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await rest(call)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert GENERATOR.key.digest in error.value.details()


async def test_a_cancelled_stream_ends_the_work(service) -> None:
    give_plan(service, counts={(0, 4): 1_000_000})
    service.pool.faults.delay_s = 0.01
    call = service.stub.PullDataset(pb.PullDatasetRequest(ticket=b"other"))
    for _ in range(3):
        await call.read()
    call.cancel()
    await until(lambda: service.metric("fount_open_pulls", rpc="PullDataset") == 0)
    await until(lambda: not service.pool.running)
    calls = len(service.pool.calls)
    assert await until_constant(lambda: len(service.pool.calls), quiet_s=0.1) == calls


async def test_a_client_that_does_not_read_stops_the_work(service) -> None:
    give_plan(service, counts={(0, 4): 1_000_000}, min_confidence=0.0)
    call = service.stub.PullDataset(pb.PullDatasetRequest(ticket=b"other", provenance=FULL))
    await call.read()
    assert await until_constant(lambda: len(service.pool.calls)) < 300  # the buffers of both ends are full
    call.cancel()


async def test_a_deadline_ends_the_stream(service) -> None:
    give_plan(service, counts={(0, 4): 1_000_000})
    service.pool.faults.delay_s = 0.05
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in service.stub.PullDataset(pb.PullDatasetRequest(ticket=b"other"), timeout=0.3):
            pass
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_overloaded_gateway_refuses_a_pull_before_its_header(tmp_path) -> None:
    async with augmenting(tmp_path, max_streams=1) as service:
        service.pool.faults.delay_s = 0.2
        give_plan(service, counts={(0, 4): 1000})
        one = service.stub.PullDataset(pb.PullDatasetRequest(ticket=b"other"))
        await until(lambda: service.pool.running)
        error = await service.refused(b"other")
        one.cancel()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_pull_that_has_started_waits_for_capacity(tmp_path) -> None:
    async with augmenting(tmp_path, max_streams=1) as service:
        give_plan(service, counts={(0, 3): 1000, (0, 4): 1000})
        _, chunks = await service.pull(b"other")
    assert sum(chunk.samples.count for chunk in chunks) == 2000
