"""Bad streams of given rows: every wrong field is named with its remedy, and nothing hangs."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
import numpy as np
import pytest

from fount.v1 import latent_pb2 as latent
from fount.v1 import model_pb2, sampling_pb2
from tests.contract.augmenting import NamedCallers
from tests.contract.gateways import Running, is_idle, serving
from tests.contract.given.streams import (
    RPCS,
    fields_of,
    method,
    pixels,
    pool_of_models,
    ref,
    refused,
    requests,
    results,
    rows,
)
from tests.waiting import until, until_constant

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
LATENTS = np.zeros((2, 2), np.float32)


def good_rows(rpc: str) -> sampling_pb2.InputRows:
    return rows(LATENTS if rpc == "Decode" else pixels(2))


def model_of(rpc: str) -> str:
    return "classes" if rpc == "Classify" else "plain"


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_stream_must_begin_with_a_config(running: Running, rpc: str) -> None:
    _, message = requests(rpc, {}, good_rows(rpc))
    error = await refused(running, rpc, message)
    assert (error.code(), list(fields_of(error))) == (INVALID, ["config"])


@pytest.mark.parametrize("rpc", RPCS)
async def test_only_the_first_request_is_a_config(running: Running, rpc: str) -> None:
    config, _ = requests(rpc, {"model": ref(model_of(rpc))}, good_rows(rpc))
    error = await refused(running, rpc, config, config)
    assert (error.code(), list(fields_of(error))) == (INVALID, ["config"])


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_model_without_the_operation_says_what_it_has(running: Running, rpc: str) -> None:
    error = await refused(running, rpc, *requests(rpc, {"model": ref("sampler")}))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "it has SAMPLE" in error.details()


@pytest.mark.parametrize("rpc", RPCS)
async def test_an_unknown_model_is_not_found(running: Running, rpc: str) -> None:
    error = await refused(running, rpc, *requests(rpc, {"model": ref("nobody")}))
    assert (error.code(), list(fields_of(error))) == (NOT_FOUND, ["config.model.name"])


@pytest.mark.parametrize("rpc", RPCS)
async def test_a_config_names_every_wrong_field(running: Running, rpc: str) -> None:
    config: dict[str, Any] = {"model": ref(model_of(rpc)), "start_index": 2**64 - 1, "priority": 9}
    expected = {"config.priority"}
    if rpc == "Vary":
        expected |= {"config.start_index"}
    if rpc in ("Reconstruct", "Decode", "Interpolate", "Vary"):
        config["encoding"] = 9
        expected |= {"config.encoding"}
    if rpc in ("Encode", "Reconstruct"):
        config["latents"] = 9
        expected |= {"config.latents"}
    if rpc == "Interpolate":
        config |= {"points": 1, "path": 9}
        expected |= {"config.points", "config.path"}
    if rpc == "Vary":
        config |= {"variants": 1001, "jitter": latent.Jitter(scale=math.nan)}
        expected |= {"config.variants", "config.jitter.scale"}
    if rpc == "Score":
        config["parameters"] = sampling_pb2.Parameters(top_k=3)
        expected |= {"config.parameters.top_k"}
    if rpc == "Classify":
        config["prior"] = sampling_pb2.Mixture()
        expected |= {"config.prior.components"}
    error = await refused(running, rpc, *requests(rpc, config, good_rows(rpc)))
    assert (error.code(), set(fields_of(error))) == (INVALID, expected)


@pytest.mark.parametrize("rpc", RPCS)
async def test_rows_name_every_wrong_field(running: Running, rpc: str) -> None:
    bad = sampling_pb2.InputRows(count=3, dtype=7, labels=[0], data=b"12345")
    error = await refused(running, rpc, *requests(rpc, {"model": ref(model_of(rpc))}, bad))
    assert (error.code(), set(fields_of(error))) == (INVALID, {"rows.dtype", "rows.labels", "rows.data"})


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 1.5], ids=["nan", "infinite", "outside"])
async def test_floats_must_be_finite_and_in_range(running: Running, rpc: str, value: float) -> None:
    values = np.full((2, 2) if rpc == "Decode" else (2, 2, 3, 1), 0.5, np.float32)
    values[1].flat[0] = value
    if rpc == "Decode" and value == 1.5:
        return  # a latent may be anywhere
    error = await refused(running, rpc, *requests(rpc, {"model": ref(model_of(rpc))}, rows(values)))
    assert error.code() == INVALID
    assert "row 1 has" in fields_of(error)["rows.data"]


@pytest.mark.parametrize("rpc", RPCS)
async def test_no_rows_at_all_are_answered_by_a_header(running: Running, rpc: str) -> None:
    stream = method(running, rpc)(iter(requests(rpc, {"model": ref(model_of(rpc))})), timeout=20)
    assert [each.WhichOneof("kind") async for each in stream] == ["header"]


@pytest.mark.parametrize("rpc", RPCS)
async def test_rows_of_no_count_are_refused(running: Running, rpc: str) -> None:
    empty = sampling_pb2.InputRows()
    error = await refused(running, rpc, *requests(rpc, {"model": ref(model_of(rpc))}, empty))
    assert list(fields_of(error)) == ["rows.count"]


async def test_a_count_that_no_data_follow_is_refused_at_once(running: Running) -> None:
    config = {"model": ref("classes"), "label": sampling_pb2.LabelRef(id=1)}
    error = await refused(running, "Encode", *requests("Encode", config, sampling_pb2.InputRows(count=2**32 - 1)))
    assert list(fields_of(error)) == ["rows.data"]


async def test_results_beyond_the_last_index_are_refused(running: Running) -> None:
    last = {"points": 8, "start_index": 2**61 - 1}  # the index of the last pair's last point is 2^64 - 1
    assert len(await results(running, "Interpolate", last, rows(pixels(2)))) == 8
    error = await refused(running, "Interpolate", *requests("Interpolate", last, rows(pixels(4))))
    assert list(fields_of(error)) == ["rows.count"]


async def test_a_line_needs_an_even_number_of_rows(running: Running) -> None:
    error = await refused(running, "Interpolate", *requests("Interpolate", {}, rows(pixels(3))))
    assert "send an even number of rows" in fields_of(error)["rows"]


async def test_rows_of_a_pair_have_one_label(running: Running) -> None:
    config = {"model": ref("classes")}
    error = await refused(running, "Interpolate", *requests("Interpolate", config, rows(pixels(2), labels=[0, 1])))
    assert list(fields_of(error)) == ["rows.labels"]


@pytest.mark.parametrize("rpc", ["Encode", "Reconstruct", "Interpolate", "Vary", "Decode"])
async def test_a_conditional_model_needs_labels(running: Running, rpc: str) -> None:
    error = await refused(running, rpc, *requests(rpc, {"model": ref("classes")}, good_rows(rpc)))
    assert "name config.label, or one label a row" in fields_of(error)["rows.labels"]


async def test_a_label_that_does_not_exist_is_not_found(running: Running) -> None:
    config = {"model": ref("classes")}
    error = await refused(running, "Encode", *requests("Encode", config, rows(pixels(2), labels=[0, 3])))
    assert (error.code(), list(fields_of(error))) == (NOT_FOUND, ["rows.labels[1]"])


async def test_labels_twice_are_refused(running: Running) -> None:
    config = {"model": ref("classes"), "label": sampling_pb2.LabelRef(id=1)}
    error = await refused(running, "Encode", *requests("Encode", config, rows(pixels(2), labels=[0, 1])))
    assert list(fields_of(error)) == ["rows.labels"]


async def test_too_many_rows_in_one_message_are_refused(running: Running) -> None:
    many = rows(np.zeros((200_000, 2, 3, 1), np.uint8))
    error = await refused(running, "Encode", *requests("Encode", {}, many))
    assert "send fewer rows" in fields_of(error)["rows.data"]


async def test_a_direction_that_does_not_exist_is_not_found(running: Running) -> None:
    config = {"walk": latent.Walk(direction="wide")}
    error = await refused(running, "Vary", *requests("Vary", config, rows(pixels(1))))
    assert (error.code(), fields_of(error)["config.walk.direction"]) == (
        NOT_FOUND,
        "plain has no direction 'wide'; it has huge, tall",
    )


async def test_samples_that_are_vectors_are_floats(running: Running) -> None:
    config = {"model": ref("points"), "encoding": model_pb2.ENCODING_PNG}
    error = await refused(running, "Decode", *requests("Decode", config, rows(LATENTS)))
    assert list(fields_of(error)) == ["config.encoding"]


async def test_scores_need_a_grant_of_their_own() -> None:
    async with serving(pool_of_models(), NamedCallers("sample:*")) as running:
        messages = requests("Score", {}, rows(pixels(1)))
        error = await refused(running, "Score", *messages, metadata=(("caller", "alice"),))
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "score:plain" in error.details()


async def send_without_reading(running: Running, rpc: str, config: dict[str, Any], message: sampling_pb2.InputRows):
    """Send rows without end and take no result, until no more are read; return the stream and the rows of all calls."""
    sent = 0

    async def endless():
        nonlocal sent
        first, following = requests(rpc, config, message)
        yield first
        while True:
            yield following
            sent += 1
            await asyncio.sleep(0)

    stream = method(running, rpc)(endless(), timeout=60)
    await until(lambda: running.pool.calls)
    await until_constant(lambda: sent)
    return stream, sum(item.count for call in running.pool.calls for item in call.items)


async def test_a_client_that_does_not_read_is_read_no_further(running: Running) -> None:
    stream, decoded = await send_without_reading(running, "Vary", {"variants": 1000}, rows(pixels(10_000)))
    stream.cancel()
    await until(lambda: not running.pool.running)
    assert decoded * 6 < 8 << 20  # a window of samples, of 6 bytes each, and what gRPC holds


async def test_rows_whose_results_are_small_are_read_no_further_either(running: Running) -> None:
    large = rows(np.zeros((100_000, 2, 3, 1), np.uint8))  # 600 kB, whose scores are 800 kB
    stream, scored = await send_without_reading(running, "Score", {}, large)
    assert scored <= 1_500_000
    stream.cancel()


async def test_a_cancelled_stream_ends_its_work(running: Running) -> None:
    running.pool.faults.delay_s = 0.05
    stream = method(running, "Vary")(iter(requests("Vary", {"variants": 1000}, rows(pixels(100)))), timeout=20)
    await stream.read()
    stream.cancel()
    metric = running.gateway.metrics.registry.get_sample_value
    await until(lambda: metric("fount_open_pulls", {"rpc": "Vary"}) == 0)
    await until(lambda: is_idle(running.gateway.scheduler))


async def test_a_deadline_ends_a_stream(running: Running) -> None:
    running.pool.faults.delay_s = 5
    stream = method(running, "Encode")(iter(requests("Encode", {}, rows(pixels(1)))), timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        [each async for each in stream]
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
