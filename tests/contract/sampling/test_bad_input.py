"""Invalid requests: the status, every wrong field, and the gateway works afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import grpc
import pytest
from google.rpc import error_details_pb2

from fount.v1 import model_pb2, sampling_pb2
from service.config import GatewayConfig
from service.domain import Encoding, ModelState, Operation
from service.gateway import Gateway
from service.workers import Offer
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import TOY, Running, details, fields, label, request, serving

WRONG = sampling_pb2.MixtureComponent
REF = sampling_pb2.LabelRef


def mixture(*components: sampling_pb2.MixtureComponent) -> sampling_pb2.Condition:
    return sampling_pb2.Condition(mixture=sampling_pb2.Mixture(components=components))


def parameters(**values) -> sampling_pb2.SampleRequest:
    return request(parameters=sampling_pb2.Parameters(**values))


INVALID = {
    "empty message": (sampling_pb2.SampleRequest(), ["model.name", "count"]),
    "count 0": (request(0), ["count"]),
    "count above the limit": (request(10_000_001), ["count"]),
    "indices past 2^64": (request(10, start_index=2**64 - 9), ["start_index"]),
    "malformed digest": (request(model=model_pb2.ModelRef(name="toy", digest="abc")), ["model.digest"]),
    "labels of the wrong length": (
        request(3, condition=sampling_pb2.Condition(labels=sampling_pb2.Labels(ids=[1, 2]))),
        ["condition.labels.ids"],
    ),
    "empty condition": (request(condition=sampling_pb2.Condition()), ["condition"]),
    "label of no kind": (request(condition=sampling_pb2.Condition(label=REF())), ["condition.label"]),
    "mixture empty": (request(condition=mixture()), ["condition.mixture.components"]),
    "mixture all zero": (request(condition=mixture(WRONG(label=REF(id=1)))), ["condition.mixture.components"]),
    "mixture negative": (
        request(condition=mixture(WRONG(label=REF(id=1), weight=-1))),
        ["condition.mixture.components[0].weight"],
    ),
    "mixture NaN and infinite": (
        request(condition=mixture(WRONG(label=REF(id=1), weight=math.nan), WRONG(label=REF(id=2), weight=math.inf))),
        ["condition.mixture.components[0].weight", "condition.mixture.components[1].weight"],
    ),
    "mixture names a label twice": (
        request(condition=mixture(WRONG(label=REF(id=1), weight=1), WRONG(label=REF(name="one"), weight=1))),
        ["condition.mixture.components[1].label"],
    ),
    "parameter unknown to the model": (parameters(guidance_scale=3), ["parameters.guidance_scale"]),
    "parameter out of range": (parameters(truncation=0.1), ["parameters.truncation"]),
    "parameter NaN": (parameters(truncation=math.nan), ["parameters.truncation"]),
    "parameter infinite": (parameters(truncation=math.inf), ["parameters.truncation"]),
    "unknown encoding": (request(encoding=77), ["encoding"]),
    "unknown priority": (request(priority=77), ["priority"]),
    "several at once": (
        request(0, encoding=77, parameters=sampling_pb2.Parameters(truncation=9, top_k=3), condition=label(9)),
        ["count", "encoding", "parameters.truncation", "parameters.top_k", "condition.label.id"],
    ),
}

UNKNOWN = {
    "model": (request(model=model_pb2.ModelRef(name="tuy")), "model.name", "did you mean 'toy'?"),
    "version": (request(model=model_pb2.ModelRef(name="toy", version="9")), "model.version", "served: 1"),
    "label id": (request(condition=label(3)), "condition.label.id", "0 ('zero')"),
    "label name": (
        request(condition=sampling_pb2.Condition(label=REF(name="sieben"))),
        "condition.label.name",
        "'sieben'",
    ),
    "label within labels": (
        request(2, condition=sampling_pb2.Condition(labels=sampling_pb2.Labels(ids=[0, 5]))),
        "condition.labels.ids[1]",
        "no label 5",
    ),
    "label within a mixture": (
        request(condition=mixture(WRONG(label=REF(id=8), weight=1))),
        "condition.mixture.components[0].label.id",
        "no label 8",
    ),
}


@pytest.fixture
async def checked(running: Running):
    """A gateway that must give the same samples after the test."""
    _, before = await running.sample(request())
    yield running
    _, after = await running.sample(request())
    assert after == before


@pytest.mark.parametrize("case", INVALID, ids=str)
async def test_invalid_fields_are_all_named(checked: Running, case: str) -> None:
    bad, names = INVALID[case]
    error = await checked.refused(bad)
    assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, names)


@pytest.mark.parametrize("case", UNKNOWN, ids=str)
async def test_unknown_names_are_not_found_with_a_hint(checked: Running, case: str) -> None:
    bad, name, hint = UNKNOWN[case]
    error = await checked.refused(bad)
    assert (error.code(), fields(error)) == (grpc.StatusCode.NOT_FOUND, [name])
    assert hint in error.details()


async def test_a_digest_not_served_is_a_failed_precondition(checked: Running) -> None:
    error = await checked.refused(request(model=model_pb2.ModelRef(name="toy", digest="sha256:" + "0" * 64)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_numerics_without_a_worker_are_a_failed_precondition(checked: Running) -> None:
    error = await checked.refused(request(numerics="unknown-cpu"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "there are memory" in error.details()


async def test_every_error_carries_a_reason_and_a_request_id(checked: Running) -> None:
    info = details(await checked.refused(request(0)), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, len(info.metadata["request_id"])) == ("INVALID_REQUEST", "fount", 32)


async def test_a_message_over_the_size_limit_is_refused(checked: Running) -> None:
    huge = request(1, condition=sampling_pb2.Condition(labels=sampling_pb2.Labels(ids=[1] * 5_000_000)))
    error = await checked.refused(huge)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_random_bytes_on_the_port_are_tolerated(checked: Running) -> None:
    for garbage in (b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
        _, writer = await asyncio.open_connection("127.0.0.1", checked.gateway.port)
        writer.write(garbage)
        await writer.drain()
        writer.close()


async def test_an_invalid_message_fails_its_call_alone(checked: Running) -> None:
    call = checked.channel.unary_stream("/fount.v1.SamplingService/Sample", request_serializer=None)
    with pytest.raises(grpc.aio.AioRpcError):
        [each async for each in call(b"\xff\xfe\xfd", timeout=5)]


async def test_an_unexpected_error_is_internal_without_its_text(checked: Running) -> None:
    checked.pool.faults.crash = ZeroDivisionError("a secret")
    error = await checked.refused(request())
    checked.pool.faults.crash = None
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "request id" in error.details()


@pytest.fixture
async def others(config):
    """A gateway with an unconditional model, and one that does not sample."""
    models = [
        memory_model("plain", labels=()),
        memory_model("classifier", operations=frozenset({Operation.CLASSIFY}), encodings=frozenset()),
    ]
    async with serving(MemoryPool(models=models)) as running:
        yield running


async def test_a_label_for_an_unconditional_model_is_invalid(others: Running) -> None:
    error = await others.refused(request(model=model_pb2.ModelRef(name="plain"), condition=label(1)))
    assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, ["condition"])


async def test_an_unconditional_model_sends_no_labels(others: Running) -> None:
    _, chunks = await others.sample(request(model=model_pb2.ModelRef(name="plain")))
    assert [list(chunk.labels) for chunk in chunks] == [[]]


async def test_a_model_that_cannot_sample_is_a_failed_precondition(others: Running) -> None:
    error = await others.refused(request(model=model_pb2.ModelRef(name="classifier")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "CLASSIFY" in error.details()


async def test_an_encoding_the_model_lacks_is_invalid(config) -> None:
    raw = memory_model("raw", encodings=frozenset({Encoding.UINT8}))
    async with serving(MemoryPool(models=[raw])) as running:
        error = await running.refused(request(model=model_pb2.ModelRef(name="raw"), encoding=model_pb2.ENCODING_PNG))
        assert (fields(error), "it gives UINT8" in error.details()) == (["encoding"], True)


@pytest.mark.parametrize(
    "bad",
    [
        request(condition=mixture(*[WRONG(label=REF(id=1), weight=-1)] * 300)),
        request(numerics="é" * 2000),
        request(model=model_pb2.ModelRef(name="ü" * 5000)),
        request(5000, condition=sampling_pb2.Condition(labels=sampling_pb2.Labels(ids=[9] * 5000))),
    ],
    ids=["components", "numerics", "name", "labels"],
)
async def test_an_error_with_many_violations_fits_the_limits_of_grpc(checked: Running, bad) -> None:
    error = await checked.refused(bad)
    assert error.code().name in {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"}
    assert details(error, error_details_pb2.ErrorInfo) is not None


async def test_no_ready_worker_is_unavailable(running: Running) -> None:
    running.pool.set_up(up=False)
    error = await running.refused(request())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    running.pool.set_up(up=True)


async def test_a_broken_newer_version_does_not_hide_a_good_one(config) -> None:
    broken = Offer(name="toy", version="2", state=ModelState.UNAVAILABLE, reason="archive is cut short")
    async with serving(MemoryPool(extra_offers=[broken])) as running:
        header, _ = await running.sample(request())
        assert header.model.version == "1"


async def test_an_absent_configured_default_is_not_replaced() -> None:
    pinned = GatewayConfig(port=0, http_port=0, default_versions={"toy": "7"})
    gateway = Gateway(MemoryPool(), pinned)
    await gateway.start()
    running = Running(gateway, gateway.pool, grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))
    error = await running.refused(request())
    assert (error.code(), "toy 7" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
    await running.channel.close()
    await gateway.stop(grace_s=0)


async def test_a_request_is_checked_against_the_pinned_digest(config) -> None:
    old = memory_model("toy", dims=(2, 3, 1))
    fresh = memory_model("toy", dims=(4, 4, 1), labels=("only",))
    key = dataclasses.replace(fresh.key, digest="sha256:" + "b" * 64)
    fresh = dataclasses.replace(fresh, key=key)
    async with serving(MemoryPool(models=[old, fresh])) as running:
        pinned = model_pb2.ModelRef(name="toy", digest=key.digest)
        header, chunks = await running.sample(request(4, model=pinned))
        assert list(header.sample_spec.dims) == [4, 4, 1]
        assert {label for chunk in chunks for label in chunk.labels} == {0}
        error = await running.refused(request(4, model=pinned, condition=label(2)))
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_name_is_not_unknown_before_every_worker_is_described(config, monkeypatch) -> None:
    pool = MemoryPool()
    async with serving(pool) as running:
        monkeypatch.setattr(MemoryPool, "is_discovered", lambda self: False)
        error = await running.refused(request(model=model_pb2.ModelRef(name="later")))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_only_a_model_that_fails_its_golden_samples_is_unavailable(config) -> None:
    failing = Offer(
        name="broken", version="1", state=ModelState.UNAVAILABLE, reason="golden samples differ by 7 levels"
    )
    async with serving(MemoryPool(extra_offers=[failing])) as running:
        error = await running.refused(request(model=model_pb2.ModelRef(name="broken")))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "golden samples differ" in error.details()
        await running.sample(request(model=TOY))
