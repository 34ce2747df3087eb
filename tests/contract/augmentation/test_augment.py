"""Augment: the variants of rows that a client sends, in order, and streams that are refused or that stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc
import numpy as np
import pytest

from fount.address import Addresses
from fount.transforms import COLUMNS, draw, draw_provenance, gentle_policy
from fount.v1 import augmentation_pb2 as pb
from fount.v1 import model_pb2
from service.calls import ManipulationItem
from service.rpc.fields import policy_to_proto
from service.workers.memory import MemoryPool
from service.workers.memory_models import memory_transform
from tests.contract.augmenting import CLASSIFIER, POLICY, Augmenting, NamedCallers, augmenting
from tests.waiting import until, until_constant

FULL, NONE = pb.PROVENANCE_LEVEL_FULL, pb.PROVENANCE_LEVEL_NONE


def config(**fields) -> pb.AugmentRequest:
    values = {"height": 4, "width": 4, "channels": 1, "seed": 7, "variants": 3, "dataset": "small"} | fields
    return pb.AugmentRequest(config=pb.AugmentConfig(**values))


def pixels(count: int, seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)


def rows(images, labels: Iterable[int] = ()) -> pb.AugmentRequest:
    return pb.AugmentRequest(rows=pb.AugmentRows(count=len(images), data=images.tobytes(), labels=labels))


async def answers(service: Augmenting, *requests: pb.AugmentRequest):
    """The header and the chunks of a stream of these requests."""
    responses = [each async for each in service.stub.Augment(iter(requests), timeout=20)]
    return responses[0].header, [each.chunk for each in responses[1:]]


def data(chunks) -> bytes:
    return b"".join(chunk.samples.data for chunk in chunks)


def expected(images, variants: int = 3, first: int = 0, policy=POLICY, seed: int = 7) -> bytes:
    """Variant v of row i as the in-memory worker makes it at address (seed, i * variants + v)."""
    indices = np.arange(first * variants, (first + len(images)) * variants, dtype=np.uint64)
    table = draw(policy, addresses(indices, seed))
    item = ManipulationItem(rows=images.repeat(variants, axis=0), table=table, seed=seed, indices=indices)
    return memory_transform(item).tobytes()


def addresses(indices, seed: int = 7) -> Addresses:
    return Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)


async def test_the_header_reports_what_was_resolved(service) -> None:
    header, _ = await answers(service, config(provenance=FULL))
    assert (header.seed, header.variants, list(header.sample_spec.dims)) == (7, 3, [4, 4, 1])
    assert (header.model.role, header.model.model.name, header.model.numerics) == (
        "transformer",
        "transforms",
        "memory",
    )
    assert header.policy == policy_to_proto(POLICY)
    assert tuple(header.transform_columns) == COLUMNS


async def test_each_row_has_its_variants_in_order(service) -> None:
    images = pixels(5)
    _, chunks = await answers(service, config(), rows(images, labels=[4, 5, 6, 7, 8]))
    assert data(chunks) == expected(images)
    assert [label for chunk in chunks for label in chunk.samples.labels] == list(np.repeat([4, 5, 6, 7, 8], 3))


async def test_rows_may_be_split_into_requests_anywhere(service) -> None:
    images = pixels(40)
    parts = [rows(part) for part in np.split(images, [1, 2, 17])]
    _, chunks = await answers(service, config(), *parts)
    assert data(chunks) == expected(images)
    assert [chunk.samples.start_index for chunk in chunks] == [0, 3, 6, 51]


async def test_many_variants_are_made_in_batches(service) -> None:
    images = pixels(7)
    _, chunks = await answers(service, config(variants=1000), rows(images))
    assert data(chunks) == expected(images, variants=1000)
    assert max(chunk.samples.count for chunk in chunks) == 2048


async def test_a_stream_is_resumed_at_a_row(service) -> None:
    images = pixels(6)
    _, chunks = await answers(service, config(start_index=4), rows(images[4:]))
    assert data(chunks) == expected(images[4:], first=4)
    assert chunks[0].samples.start_index == 12


async def test_provenance_names_row_and_address(service) -> None:
    _, (chunk,) = await answers(service, config(provenance=FULL, start_index=10), rows(pixels(2)))
    provenance = chunk.provenance
    assert list(provenance.source_rows) == [10, 10, 10, 11, 11, 11]
    assert (list(provenance.indices), set(provenance.seeds)) == (list(range(30, 36)), {7})
    table = np.array(provenance.transforms, np.float32).reshape(6, len(COLUMNS))
    np.testing.assert_array_equal(table, draw_provenance(POLICY, addresses(np.arange(30, 36, dtype=np.uint64))))


async def test_provenance_may_be_left_out(service) -> None:
    _, (chunk,) = await answers(service, config(provenance=NONE), rows(pixels(2)))
    assert not chunk.HasField("provenance")


async def test_without_a_data_set_the_policy_is_gentle(service) -> None:
    images = pixels(3)
    header, chunks = await answers(service, config(dataset=""), rows(images))
    assert header.policy == policy_to_proto(gentle_policy())
    assert data(chunks) == expected(images, policy=gentle_policy())


async def test_an_unset_seed_is_drawn_and_reported(service) -> None:
    unseeded = config()
    unseeded.config.ClearField("seed")
    images = pixels(3)
    header, chunks = await answers(service, unseeded, rows(images))
    assert data(chunks) == expected(images, seed=header.seed)


async def test_a_stream_of_a_config_alone_is_a_header(service) -> None:
    _, chunks = await answers(service, config())
    assert chunks == []


async def test_a_client_may_wait_for_its_variants_before_it_sends_more(service) -> None:
    call = service.stub.Augment(timeout=20)
    await call.write(config())
    assert (await call.read()).HasField("header")
    for k in range(5):
        await call.write(rows(pixels(1, seed=k)))
        chunk = (await call.read()).chunk
        assert chunk.samples.data == expected(pixels(1, seed=k), first=k)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_lost_worker_changes_nothing(service) -> None:
    service.pool.faults.lose_calls = 1
    _, chunks = await answers(service, config(), rows(pixels(9)))
    assert data(chunks) == expected(pixels(9))


async def test_a_client_that_sends_and_never_reads_is_read_no_further(tmp_path) -> None:
    """Each request becomes 1000 times its size, so it may send little ahead."""
    async with augmenting(tmp_path, window_bytes=1 << 20) as service:
        call = service.stub.Augment()
        await call.write(config(variants=1000))
        sent = [0]
        sending = asyncio.create_task(send_all(call, sent))
        await until_constant(lambda: sent[0])
        made = service.metric("fount_variants_total") * 16
        sending.cancel()
        call.cancel()
        assert made < 32 << 20
        await until(lambda: service.metric("fount_open_pulls", rpc="Augment") == 0)


async def send_all(call, sent: list[int]) -> None:
    while True:
        await call.write(rows(pixels(4096)))
        sent[0] += 1


async def test_a_cancelled_stream_ends_the_work(service) -> None:
    service.pool.faults.delay_s = 0.01
    call = service.stub.Augment()
    await call.write(config(variants=1000))
    await call.write(rows(pixels(4096)))
    for _ in range(3):
        await call.read()
    call.cancel()
    await until(lambda: service.metric("fount_open_pulls", rpc="Augment") == 0)
    await until(lambda: not service.pool.running)


async def test_a_stream_closed_early_by_the_client_is_answered_whole(service) -> None:
    service.pool.faults.delay_s = 0.02
    call = service.stub.Augment(timeout=20)
    for request in (config(), rows(pixels(30))):
        await call.write(request)
    await call.done_writing()
    responses = [each async for each in call]
    assert data([each.chunk for each in responses[1:]]) == expected(pixels(30))


# --- What is refused --------------------------------------------------------------------------------------------------


async def until_refused(service: Augmenting, *requests: pb.AugmentRequest):
    """Return the responses before the error, and the error."""
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


REMEDIES = {
    "": "; send smaller images",
    "digits": "; set size in the configuration of the data set 'digits', or send smaller images",
}


@pytest.mark.parametrize(("dataset", "remedy"), REMEDIES.items(), ids=["images", "data set"])
async def test_the_remedy_for_too_large_images_is_that_of_their_origin(service, dataset, remedy) -> None:
    _, error = await until_refused(service, config(height=4096, width=4096, dataset=dataset))
    assert error.details().endswith(remedy)


@pytest.mark.parametrize("requests", [(), (rows(pixels(1)),), (pb.AugmentRequest(),)], ids=["none", "rows", "neither"])
async def test_a_stream_must_start_with_a_config(service, requests) -> None:
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
    _, error = await until_refused(service, config(model=model_pb2.ModelRef(name="reader")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "TRANSFORM" in error.details()


async def test_without_a_transformer_the_error_names_the_archive(tmp_path) -> None:
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
async def test_bad_rows_are_refused_after_earlier_rows_are_answered(service, request_, field) -> None:
    images = pixels(4)
    responses, error = await until_refused(service, config(), rows(images), request_)
    assert (error.code(), error.details().split(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert data([each.chunk for each in responses[1:]]) == expected(images)


async def test_rows_beyond_the_last_index_are_refused(service) -> None:
    _, error = await until_refused(service, config(variants=2, start_index=2**63 - 1), rows(pixels(2)))
    assert error.details().startswith("rows.count: ")


async def test_naming_a_data_set_needs_its_grant(tmp_path) -> None:
    async with augmenting(tmp_path, policy=NamedCallers("dataset:other")) as service:
        _, error = await until_refused(service, config())
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "dataset:small" in error.details()
