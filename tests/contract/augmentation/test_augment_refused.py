"""Augment streams that are refused, with every wrong field named."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from fount.v1 import augmentation_pb2 as pb
from fount.v1 import model_pb2
from service.caller import Caller
from service.workers.memory import MemoryPool
from tests.contract.augmentation.test_augment import config, data, expected, pixels, rows
from tests.contract.augmenting import CLASSIFIER, Augmenting, augmenting


@pytest.fixture
async def service(tmp_path) -> AsyncIterator[Augmenting]:
    async with augmenting(tmp_path) as running:
        yield running


async def until_refused(service: Augmenting, *requests: pb.AugmentRequest):
    """What came before the error, and the error."""
    responses = []
    try:
        async for each in service.stub.Augment(iter(requests), timeout=20):
            responses.append(each)
    except grpc.aio.AioRpcError as error:
        return responses, error
    pytest.fail("the stream was not refused")


BAD_CONFIGS = [
    pytest.param({"height": 0}, {"config.height"}, id="no height"),
    pytest.param({"width": 4097}, {"config.width"}, id="too wide"),
    pytest.param({"channels": 5}, {"config.channels"}, id="too many channels"),
    pytest.param({"height": 4096, "width": 4096}, {"config.height"}, id="larger than a request may be"),
    pytest.param({"variants": 1001}, {"config.variants"}, id="too many variants"),
    pytest.param({"start_index": 2**64 - 1}, {"config.start_index"}, id="beyond the last index"),
    pytest.param({"provenance": 9}, {"config.provenance"}, id="no such provenance"),
    pytest.param({"policy": pb.TransformPolicy()}, {"config.policy.transforms"}, id="an empty policy"),
    pytest.param({"width": 0, "variants": 2000}, {"config.width", "config.variants"}, id="two at once"),
]


@pytest.mark.parametrize(("fields", "named"), BAD_CONFIGS)
async def test_every_wrong_field_of_a_config_is_named(service, fields, named) -> None:
    _, error = await until_refused(service, config(**fields))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert {each.split(":")[0] for each in error.details().split("; ") if ":" in each} >= named


@pytest.mark.parametrize("requests", [(), (rows(pixels(1)),), (pb.AugmentRequest(),)], ids=["none", "rows", "neither"])
async def test_a_stream_begins_with_a_config(service, requests) -> None:
    _, error = await until_refused(service, *requests)
    assert (error.code(), error.details().split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "config")


@pytest.mark.parametrize(
    "fields",
    [{"dataset": "nowhere"}, {"model": model_pb2.ModelRef(name="nobody")}],
    ids=["data set", "model"],
)
async def test_unknown_names_are_not_found(service, fields) -> None:
    _, error = await until_refused(service, config(**fields))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_model_that_does_not_transform_is_refused(service) -> None:
    _, error = await until_refused(service, config(model=model_pb2.ModelRef(name="judge")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "TRANSFORM" in error.details()


async def test_without_a_transformer_it_says_what_to_serve(tmp_path) -> None:
    async with augmenting(tmp_path, pool=MemoryPool(models=[CLASSIFIER])) as service:
        _, error = await until_refused(service, config())
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "serve the archive `transforms`" in error.details()


def bad_rows(**fields) -> pb.AugmentRequest:
    return pb.AugmentRequest(rows=pb.AugmentRows(**({"count": 2, "data": bytes(32)} | fields)))


BAD_ROWS = [
    pytest.param(bad_rows(count=0, data=b""), "rows.count", id="no rows"),
    pytest.param(bad_rows(data=bytes(31)), "rows.data", id="a byte too few"),
    pytest.param(bad_rows(data=bytes(128)), "rows.data", id="floats"),
    pytest.param(bad_rows(labels=[1]), "rows.labels", id="labels missing"),
    pytest.param(bad_rows(count=1 << 17, data=bytes(1 << 21)), "rows.data", id="too many at once"),
    pytest.param(config(), "config", id="a second config"),
    pytest.param(pb.AugmentRequest(), "rows", id="nothing"),
]


@pytest.mark.parametrize(("request_", "field"), BAD_ROWS)
async def test_bad_rows_are_refused_after_what_came_before_is_answered(service, request_, field) -> None:
    images = pixels(4)
    responses, error = await until_refused(service, config(), rows(images), request_)
    assert (error.code(), error.details().split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert data([each.chunk for each in responses[1:]]) == expected(images)


async def test_rows_beyond_the_last_index_are_refused(service) -> None:
    _, error = await until_refused(service, config(variants=2, start_index=2**63 - 1), rows(pixels(2)))
    assert error.details().startswith("rows.count: ")


class Restricted:
    """Everyone may do what is granted here."""

    def __init__(self, *grants: str) -> None:
        self.grants = frozenset(grants)

    def identify(self, peer, metadata) -> Caller:
        return Caller(subject="somebody", grants=self.grants)


async def test_naming_a_data_set_needs_its_grant(tmp_path) -> None:
    async with augmenting(tmp_path, policy=Restricted("dataset:other")) as service:
        _, error = await until_refused(service, config())
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "dataset:small" in error.details()
