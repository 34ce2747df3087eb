"""Bad input: the right status, every bad field named, and the service unharmed."""

from __future__ import annotations

import asyncio
import math

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fount.v1 import model_pb2, sampling_pb2
from service.domain import Operation
from service.workers.memory import MemoryPool, memory_model
from tests.contract.conftest import Running, start_gateway
from tests.contract.sampling.test_sampling import TOY, label, request

WRONG = sampling_pb2.MixtureComponent
REF = sampling_pb2.LabelRef


def mixture(*components: sampling_pb2.MixtureComponent) -> sampling_pb2.Condition:
    return sampling_pb2.Condition(mixture=sampling_pb2.Mixture(components=components))


def parameters(**values) -> sampling_pb2.SampleRequest:
    return request(parameters=sampling_pb2.Parameters(**values))


def details(error: grpc.aio.AioRpcError, kind):
    status = rpc_status.from_call(error)
    for each in status.details:
        if each.Is(kind.DESCRIPTOR):
            found = kind()
            each.Unpack(found)
            return found
    return None


def fields(error: grpc.aio.AioRpcError) -> list[str]:
    bad = details(error, error_details_pb2.BadRequest)
    return [each.field for each in bad.field_violations] if bad else []


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
    """The gateway; afterwards it must still answer as before."""
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


async def test_numerics_nobody_has_are_a_failed_precondition(checked: Running) -> None:
    error = await checked.refused(request(numerics="cpu-of-yesterday"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "there are memory" in error.details()


async def test_every_error_carries_a_reason_and_a_request_id(checked: Running) -> None:
    info = details(await checked.refused(request(0)), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain, len(info.metadata["request_id"])) == ("INVALID_REQUEST", "fount", 32)


async def test_a_message_over_the_size_limit_is_refused(checked: Running) -> None:
    huge = request(1, condition=sampling_pb2.Condition(labels=sampling_pb2.Labels(ids=[1] * 5_000_000)))
    error = await checked.refused(huge)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_random_bytes_on_the_port_do_no_harm(checked: Running) -> None:
    for garbage in (b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
        _, writer = await asyncio.open_connection("127.0.0.1", checked.gateway.port)
        writer.write(garbage)
        await writer.drain()
        writer.close()


async def test_garbage_in_a_message_is_an_error_of_the_call_alone(checked: Running) -> None:
    call = checked.channel.unary_stream("/fount.v1.SamplingService/Sample", request_serializer=None)
    with pytest.raises(grpc.aio.AioRpcError):
        [each async for each in call(b"\xff\xfe\xfd", timeout=5)]


async def test_an_unexpected_error_is_internal_and_keeps_its_text(checked: Running) -> None:
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
        memory_model("judge", operations=frozenset({Operation.CLASSIFY}), encodings=frozenset()),
    ]
    running = await start_gateway(MemoryPool(models=models), config)
    yield running
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


async def test_a_label_for_an_unconditional_model_is_invalid(others: Running) -> None:
    error = await others.refused(request(model=model_pb2.ModelRef(name="plain"), condition=label(1)))
    assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, ["condition"])


async def test_an_unconditional_model_sends_no_labels(others: Running) -> None:
    _, chunks = await others.sample(request(model=model_pb2.ModelRef(name="plain")))
    assert [list(chunk.labels) for chunk in chunks] == [[]]


async def test_a_model_that_cannot_sample_is_a_failed_precondition(others: Running) -> None:
    error = await others.refused(request(model=model_pb2.ModelRef(name="judge")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "CLASSIFY" in error.details()


async def test_an_encoding_the_model_lacks_is_invalid(config) -> None:
    from service.domain import Encoding

    raw = memory_model("raw", encodings=frozenset({Encoding.UINT8}))
    running = await start_gateway(MemoryPool(models=[raw]), config)
    error = await running.refused(request(model=model_pb2.ModelRef(name="raw"), encoding=model_pb2.ENCODING_PNG))
    assert (fields(error), "it gives UINT8" in error.details()) == (["encoding"], True)
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


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
async def test_however_much_is_wrong_the_answer_stays_readable(checked: Running, bad) -> None:
    error = await checked.refused(bad)
    assert error.code().name in {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"}
    assert details(error, error_details_pb2.ErrorInfo) is not None


async def test_no_ready_worker_is_unavailable(running: Running) -> None:
    running.pool.set_up(False)
    error = await running.refused(request())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    running.pool.set_up(True)


async def test_a_broken_newer_version_does_not_hide_a_good_one(config) -> None:
    from service.domain import ModelState
    from service.workers import Offer

    broken = Offer(name="toy", version="2", state=ModelState.UNAVAILABLE, reason="archive is cut short")
    running = await start_gateway(MemoryPool(extra_offers=[broken]), config)
    header, _ = await running.sample(request())
    assert header.model.version == "1"
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


async def test_a_configured_default_that_is_absent_is_not_replaced() -> None:
    from service.config import GatewayConfig
    from service.gateway import Gateway

    pinned = GatewayConfig(port=0, http_port=0, default_versions={"toy": "7"})
    gateway = Gateway(MemoryPool(), pinned)
    await gateway.start()
    running = Running(gateway, gateway.pool, grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))
    error = await running.refused(request())
    assert (error.code(), "toy 7" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
    await running.channel.close()
    await gateway.stop(grace_s=0)


async def test_a_stream_is_checked_against_the_very_digest_it_draws_from(config) -> None:
    import dataclasses

    old = memory_model("toy", dims=(2, 3, 1))
    fresh = memory_model("toy", dims=(4, 4, 1), labels=("only",))
    key = dataclasses.replace(fresh.key, digest="sha256:" + "b" * 64)
    fresh = dataclasses.replace(fresh, key=key)
    running = await start_gateway(MemoryPool(models=[old, fresh]), config)
    pinned = model_pb2.ModelRef(name="toy", digest=key.digest)
    header, chunks = await running.sample(request(4, model=pinned))
    assert list(header.sample_spec.dims) == [4, 4, 1]
    assert {label for chunk in chunks for label in chunk.labels} == {0}
    error = await running.refused(request(4, model=pinned, condition=label(2)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


async def test_a_name_is_not_unknown_before_every_worker_was_heard(config, monkeypatch) -> None:
    pool = MemoryPool()
    running = await start_gateway(pool, config)
    monkeypatch.setattr(MemoryPool, "is_discovered", lambda self: False)
    error = await running.refused(request(model=model_pb2.ModelRef(name="later")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    await running.channel.close()
    await running.gateway.stop(grace_s=0)


async def test_a_model_that_fails_its_golden_samples_is_alone_unavailable(config) -> None:
    from service.domain import ModelState
    from service.workers import Offer

    failing = Offer(name="bent", version="1", state=ModelState.UNAVAILABLE, reason="golden samples differ by 7 levels")
    running = await start_gateway(MemoryPool(extra_offers=[failing]), config)
    error = await running.refused(request(model=model_pb2.ModelRef(name="bent")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "golden samples differ by 7 levels" in error.details()
    await running.sample(request(model=TOY))
    await running.channel.close()
    await running.gateway.stop(grace_s=0)
