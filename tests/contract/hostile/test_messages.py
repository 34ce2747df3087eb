"""Requests that are valid on the wire and far too long, and those that are not valid: every field of every RPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.internal.encoder import _VarintBytes  # type: ignore[attr-defined]
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from fount.runner.v1 import runner_pb2
from fount.v1 import (
    augmentation_pb2,
    dataset_pb2,
    evaluation_pb2,
    latent_pb2,
    model_pb2,
    model_pb2_grpc,
    sampling_pb2,
    scoring_pb2,
    translation_pb2,
)
from tests.contract.gateways import Running, details, fields
from tests.waiting import until

MESSAGE_BYTES = (4 << 20) - 1024
BLOCKED_S = 3.0  # far above what a message takes, and far below what looking at each of its entries takes

SERVICES = [
    service
    for module in (augmentation_pb2, dataset_pb2, evaluation_pb2, latent_pb2, model_pb2, sampling_pb2, scoring_pb2,
                   translation_pb2, runner_pb2, health_pb2, reflection_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]  # fmt: skip
METHODS = [method for service in SERVICES for method in service.methods]

MODEL, LATENT = model_pb2.ModelRef(name="painter"), model_pb2.ModelRef(name="latent")
SAMPLE = sampling_pb2.SampleRequest(model=LATENT, count=1)
VALID = {
    "PlanDatasetRequest": augmentation_pb2.PlanDatasetRequest(dataset="small"),
    "CreateEvaluationRequest": evaluation_pb2.CreateEvaluationRequest(model=MODEL, count=100),
    "SampleRequest": SAMPLE,
    "SampleOnceRequest": sampling_pb2.SampleOnceRequest(request=SAMPLE),
    "ReadRequest": runner_pb2.ReadRequest(model=LATENT, operation=model_pb2.OPERATION_SCORE),
    "GetModelRequest": model_pb2.GetModelRequest(model=MODEL),
    "AugmentRequest": augmentation_pb2.AugmentRequest(
        config=augmentation_pb2.AugmentConfig(height=4, width=4, channels=1)
    ),
} | {
    method.input_type.name: GetMessageClass(method.input_type)(config={"model": LATENT})
    for module in (latent_pb2, scoring_pb2, translation_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
TEXT, BYTES, ENUM = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_ENUM


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def long_fields(message: Descriptor) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Yield the path to each list, text and bytes of a message, at any depth."""
    for field in message.fields:
        if field.is_repeated or field.type in (TEXT, BYTES):
            yield (field,)
        if field.message_type is not None:
            for rest in long_fields(field.message_type):
                yield field, *rest


def overlong(path: tuple[FieldDescriptor, ...]) -> bytes:
    """Write a message whose field at a path is as long as one message may be."""
    field = path[-1]
    tag = _VarintBytes(field.number << 3 | 2)
    if field.is_repeated and (field.message_type is not None or field.type in (TEXT, BYTES)):
        data = (tag + b"\0") * (MESSAGE_BYTES // (len(tag) + 1))  # empty entries
    else:
        entries = b"\x01" if field.type not in (TEXT, BYTES) else b"a"
        data = tag + _VarintBytes(MESSAGE_BYTES) + entries * MESSAGE_BYTES
    for outer in reversed(path[:-1]):
        data = _VarintBytes(outer.number << 3 | 2) + _VarintBytes(len(data)) + data
    return data


CASES = {
    f"{method.name} {'.'.join(each.name for each in path)}": (method, path)
    for method in METHODS
    for path in long_fields(method.input_type)
}


async def call(running: Running, method: MethodDescriptor, *messages: bytes) -> grpc.aio.AioRpcError:
    """Send raw messages, and return the error of the call."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await _call(running.channel, method, messages)
    return error.value


async def _call(channel: grpc.aio.Channel, method: MethodDescriptor, messages: tuple[bytes, ...]) -> None:
    path = path_of(method)
    if method.client_streaming:
        stream = channel.stream_stream(path)(timeout=60)
        with suppress(asyncio.InvalidStateError):  # the call may end before all is sent
            for each in messages:
                await stream.write(each)
        [each async for each in stream]
    elif method.server_streaming:
        [each async for each in channel.unary_stream(path)(messages[-1], timeout=60)]
    else:
        await channel.unary_unary(path)(messages[-1], timeout=60)


async def longest_check(running: Running, stop: asyncio.Event) -> float:
    """Check the health again and again, and return the longest time that one took."""
    stub, longest_s = health_pb2_grpc.HealthStub(running.channel), 0.0
    while not stop.is_set():
        start_s = time.monotonic()
        await stub.Check(health_pb2.HealthCheckRequest())
        longest_s = max(longest_s, time.monotonic() - start_s)
        await asyncio.sleep(0.005)
    return longest_s


@pytest.mark.parametrize("case", CASES)
async def test_an_overlong_field_is_refused_while_others_are_served(everything: Running, case: str) -> None:
    method, path = CASES[case]
    valid, stop = VALID.get(method.input_type.name), asyncio.Event()
    checks = asyncio.create_task(longest_check(everything, stop))
    await asyncio.sleep(0)
    before = valid.SerializeToString() if valid else b""
    if method.client_streaming and path[0].name != "config":
        error = await call(everything, method, before, overlong(path))
    else:
        error = await call(everything, method, before + overlong(path))
    stop.set()
    info = details(error, error_details_pb2.ErrorInfo)
    assert (error.code(), info.domain) == (grpc.StatusCode.INVALID_ARGUMENT, "fount")
    name = ".".join(each.name for each in path)
    names = name, name.removeprefix("request.")  # SampleOnce names fields of its SampleRequest
    assert any(each.startswith(field) for each in names for field in fields(error))
    assert await checks < BLOCKED_S


async def test_long_lists_of_labels_are_no_long_requests(everything: Running) -> None:
    labels = sampling_pb2.Labels(ids=[0] * 300_000)
    error = await everything.refused(
        sampling_pb2.SampleRequest(model=MODEL, count=300_000, condition=sampling_pb2.Condition(labels=labels))
    )
    assert "must hold at most 1000 labels" in error.details()


async def test_the_lists_and_texts_that_are_too_long_are_named(everything: Running) -> None:
    components = [sampling_pb2.MixtureComponent()] * 5000
    request = sampling_pb2.SampleRequest(
        model=MODEL,
        count=1,
        numerics="n" * 5000,
        condition=sampling_pb2.Condition(mixture=sampling_pb2.Mixture(components=components)),
    )
    error = await everything.refused(request)
    assert fields(error) == ["condition.mixture.components", "numerics"]


def is_malformed(method: MethodDescriptor, body: bytes) -> bool:
    try:
        GetMessageClass(method.input_type).FromString(body)
    except DecodeError:
        return True
    return False


MALFORMED = {
    f"{method.name} {name}": (method, body)
    for name, body in {
        "wire": b"\xff\xff\xff",
        "utf-8": b"\x0a\x04\x0a\x02\xff\xfe",
        "utf-8 1": b"\x0a\x02\xff\xfe",
    }.items()
    for method in METHODS
    if is_malformed(method, body)
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_is_invalid_counted_and_logged_once(
    everything: Running, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    method, body = MALFORMED[case]
    with suppress(grpc.aio.AioRpcError):
        await everything.channel.unary_unary("/none/None")(b"", timeout=5)  # connects, which is logged
    caplog.set_level(logging.INFO)
    error = await call(everything, method, body)
    kind = "bidi_stream" if method.client_streaming else "server_stream" if method.server_streaming else "unary"
    labels = {"grpc_type": kind, "grpc_service": method.containing_service.full_name, "grpc_method": method.name,
              "grpc_code": "INVALID_ARGUMENT"}  # fmt: skip
    registry = everything.gateway.metrics.registry
    await until(lambda: registry.get_sample_value("grpc_server_handled_total", labels) == 1.0)
    info = details(error, error_details_pb2.ErrorInfo)
    assert (error.code(), info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert f"the request of {method.name} cannot be read" in error.details()
    assert [(each.levelname, each.exc_info) for each in caplog.records] == [("INFO", None)]


async def test_a_malformed_request_within_a_stream_ends_it_as_invalid(everything: Running) -> None:
    method = augmentation_pb2.DESCRIPTOR.services_by_name["AugmentationService"].methods_by_name["Augment"]
    error = await call(everything, method, VALID["AugmentRequest"].SerializeToString(), b"\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_compressed_message_is_limited_by_what_it_unpacks_to(everything: Running) -> None:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{everything.gateway.port}", options) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        request = model_pb2.GetModelRequest(model=model_pb2.ModelRef(name="a" * (64 << 20)))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.GetModel(request, compression=grpc.Compression.Gzip, timeout=20)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
