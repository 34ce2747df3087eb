"""ReadingService, and the workers as a runner reaches them through a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from fount.retry import RetryPolicy
from fount.runner.v1 import runner_pb2
from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from service.calls import RangeItem, TensorItem
from service.domain import Dtype, Operation, Parameters
from service.errors import NotReady, Overloaded, Retired, UnknownName, WorkerFault
from service.evaluation.specification import PinnedModel
from service.rpc.runner_client import RemoteWorkers
from service.workers.memory_models import memory_classify, memory_embed, memory_sample
from tests.contract.evaluation_gateway import PAINTER, READER, SHAPE, EvaluationServer, pinned, serve_evaluations

IMAGES = np.random.default_rng(3).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
SOON = RetryPolicy(first_attempts=2, attempts=2, base_s=0.01, cap_s=0.01)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[EvaluationServer]:
    async with serve_evaluations(tmp_path) as served:
        yield served


@pytest.fixture
async def workers(served: EvaluationServer) -> AsyncIterator[RemoteWorkers]:
    workers = RemoteWorkers(served.server, retry=SOON)
    yield workers
    await workers.close()


def request(**changed) -> runner_pb2.ReadRequest:
    tensor = worker_pb2.Tensor(dims=IMAGES.shape, dtype=model_pb2.DTYPE_UINT8, data=IMAGES.tobytes())
    fields = {"model": model_pb2.ModelRef(name="reader"), "operation": model_pb2.OPERATION_EMBED, "images": tensor}
    return runner_pb2.ReadRequest(**(fields | changed))


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


# --- The service ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (model_pb2.OPERATION_EMBED, memory_embed(TensorItem(rows=IMAGES))),
        (model_pb2.OPERATION_CLASSIFY, memory_classify(READER, TensorItem(rows=IMAGES))),
    ],
    ids=["embed", "classify"],
)
async def test_images_are_classified_and_embedded(served: EvaluationServer, operation, expected: np.ndarray) -> None:
    reply = await served.reading.Read(request(operation=operation), timeout=20)
    assert (list(reply.rows.dims), reply.numerics) == ([40, expected.shape[1]], "memory")
    assert np.array_equal(np.frombuffer(reply.rows.data, "<f4").reshape(expected.shape), expected)


SCORED = {"model": model_pb2.ModelRef(name="scorer"), "operation": model_pb2.OPERATION_SCORE}


@pytest.mark.parametrize("labels", [(), tuple(range(4)) * 10], ids=["unlabelled", "labelled"])
async def test_images_are_scored(served: EvaluationServer, labels: tuple[int, ...]) -> None:
    reply = await served.reading.Read(request(**SCORED, labels=labels), timeout=20)
    scores = np.frombuffer(reply.rows.data, "<f4").reshape(40, 1)
    pixels = IMAGES.reshape(40, -1).sum(axis=1) / 255
    expected = -pixels + (100 * np.array(labels) if labels else 0)
    assert scores[:, 0] == pytest.approx(expected, abs=1e-4)


async def test_scoring_needs_a_grant_for_the_model(served: EvaluationServer) -> None:
    for grants, expected in (("evaluate", grpc.StatusCode.PERMISSION_DENIED), ("evaluate score:scorer", None)):
        call = served.reading.Read(request(**SCORED), metadata=(("x-grants", grants),))
        if expected is None:
            assert (await call).rows.dims[0] == 40
        else:
            assert (await refusal(call))[0] is expected


WRONG = {
    "no model": ({"model": model_pb2.ModelRef()}, "model.name: name a model"),
    "operation": (
        {"operation": model_pb2.OPERATION_SAMPLE},
        "operation: must be OPERATION_CLASSIFY, OPERATION_EMBED or OPERATION_SCORE",
    ),
    "dtype": ({"images": worker_pb2.Tensor(dims=[1, 4, 4, 1], dtype=2, data=b"x")}, "images: must be UINT8 images"),
    "dims": ({"images": worker_pb2.Tensor(dims=[16], dtype=1, data=b"x")}, "images: must be UINT8 images of dims"),
    "none": ({"images": worker_pb2.Tensor(dims=[0, 4, 4, 1], dtype=1)}, "images: must be UINT8 images of dims"),
    "bytes": (
        {"images": worker_pb2.Tensor(dims=[1, 4, 4, 1], dtype=1, data=b"x")},
        "images.data: dims [1, 4, 4, 1] are 16 bytes, got 1",
    ),
    "shape": (
        {"images": worker_pb2.Tensor(dims=[1, 2, 2, 1], dtype=1, data=b"1234")},
        "images.dims: are 2×2×1, and reader reads 4×4×1",
    ),
    "labels": ({"labels": [0] * 40}, "labels: are for OPERATION_SCORE alone, got 40"),
    "labels of scores": (SCORED | {"labels": [0] * 3}, "labels: must be one for each of 40 rows, got 3"),
    "label": (SCORED | {"labels": [4] * 40}, "labels: must be below 4, got 4"),
    "start_index": (SCORED | {"start_index": 2**64 - 1}, "start_index: must be at least 40 rows below 2^64"),
    "priority": ({"priority": 9}, "priority: 9 is not a Priority"),
}


@pytest.mark.parametrize(("changed", "message"), WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_field_is_named(served: EvaluationServer, changed: dict[str, object], message: str) -> None:
    code, details = await refusal(served.reading.Read(request(**changed)))
    assert (code, message in details) == (grpc.StatusCode.INVALID_ARGUMENT, True), details


@pytest.mark.parametrize(
    ("metadata", "changed"),
    [
        ((("x-grants", "sample:*"),), {}),
        ((("x-grants", "evaluate"),), {"priority": sampling_pb2.PRIORITY_INTERACTIVE}),
    ],
    ids=["evaluate", "priority:interactive"],
)
async def test_grants_are_needed(served: EvaluationServer, metadata, changed: dict[str, object]) -> None:
    code, _ = await refusal(served.reading.Read(request(**changed), metadata=metadata))
    assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_the_grant_evaluate_is_enough_to_read(served: EvaluationServer) -> None:
    assert (await served.reading.Read(request(), metadata=(("x-grants", "evaluate"),))).rows.dims[0] == 40


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"model": model_pb2.ModelRef(name="unknown")}, grpc.StatusCode.NOT_FOUND),
        ({"model": model_pb2.ModelRef(name="painter")}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"numerics": "other"}, grpc.StatusCode.FAILED_PRECONDITION),
        (
            {"model": model_pb2.ModelRef(name="reader", digest="sha256:" + "0" * 64)},
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
    ],
    ids=["model", "operation", "numerics", "digest"],
)
async def test_a_model_that_is_not_served_is_refused(
    served: EvaluationServer, changed: dict[str, object], code
) -> None:
    assert (await refusal(served.reading.Read(request(**changed))))[0] is code


async def test_a_busy_gateway_refuses_images(tmp_path: Path) -> None:
    async with serve_evaluations(tmp_path, max_streams=1) as served:
        served.pool.faults.delay_s = 0.5
        first = asyncio.ensure_future(served.reading.Read(request(), timeout=20))
        while not served.pool.running:
            await asyncio.sleep(0.01)
        code, _ = await refusal(served.reading.Read(request(), timeout=20))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first


# --- A client ---------------------------------------------------------------------------------------------------------


async def draw(workers: RemoteWorkers, model: PinnedModel, **changed):
    arguments = {
        "seed": 7, "start_index": 5, "count": 6, "labels": np.array([0, 1, 2, 3, 0, 1], np.uint32),
        "parameters": Parameters(truncation=1.0),
    } | changed  # fmt: skip
    return await workers.sample(model, **arguments)


async def test_samples_are_those_of_their_addresses(workers: RemoteWorkers) -> None:
    drawn = await draw(workers, pinned("painter"))
    labels = np.array([0, 1, 2, 3, 0, 1], np.uint32)
    item = RangeItem(seed=7, start_index=5, count=6, labels=labels, dtype=Dtype.UINT8)
    assert np.array_equal(drawn.images, memory_sample(PAINTER, item, 1.0))
    assert not drawn.failed.any()


async def test_an_unconditional_model_is_drawn_from_without_labels(workers: RemoteWorkers) -> None:
    drawn = await draw(workers, pinned("blind"), labels=None, count=2500)
    assert (drawn.images.shape, len(np.unique(drawn.images.reshape(2500, -1), axis=0))) == ((2500, *SHAPE), 2500)


async def test_a_part_of_a_draw_equals_that_part_of_the_whole(workers: RemoteWorkers) -> None:
    labels = (np.arange(900) % 4).astype(np.uint32)
    whole = await draw(workers, pinned("painter"), labels=labels, count=900)
    part = await draw(workers, pinned("painter"), labels=labels[500:700], start_index=505, count=200)
    assert np.array_equal(whole.images[500:700], part.images)


async def test_samples_that_failed_are_marked(served: EvaluationServer, workers: RemoteWorkers) -> None:
    served.pool.faults.bad_indices = frozenset({6, 9})
    drawn = await draw(workers, pinned("painter"))
    assert drawn.failed.tolist() == [False, True, False, False, True, False]
    assert not drawn.images[[1, 4]].any()


@pytest.mark.parametrize("count", [0, 1, 5000])
async def test_images_are_embedded_and_classified(workers: RemoteWorkers, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    features, classes = (
        await workers.embed(pinned("reader"), images),
        await workers.classify(pinned("reader"), images),
    )
    if count:
        assert np.array_equal(features, memory_embed(TensorItem(rows=images)))
        assert np.array_equal(classes, memory_classify(READER, TensorItem(rows=images)))
    assert (features.dtype, len(features), len(classes)) == (np.float32, count, count)


async def test_scores_are_read_in_short_messages(workers: RemoteWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score may take seconds, and a message has a timeout."""
    counts, read = list[int](), workers._read_message

    async def read_counted(request, model, operation, images):
        counts.append(len(images))
        return await read(request, model, operation, images)

    monkeypatch.setattr(workers, "_read_message", read_counted)
    await workers.score(pinned("scorer"), IMAGES, seed=1, start_index=5, labels=None)
    assert sum(counts) == 40
    assert max(counts) <= 8


async def test_images_are_scored_with_their_labels(workers: RemoteWorkers) -> None:
    labels = (np.arange(3000) % 4).astype(np.uint32)
    images = np.random.default_rng(0).integers(0, 256, (3000, *SHAPE), dtype=np.uint8)
    scores = await workers.score(pinned("scorer"), images, seed=1, start_index=5, labels=labels)
    assert scores[:, 0] == pytest.approx(100.0 * labels - images.reshape(3000, -1).sum(axis=1) / 255, abs=1e-4)


async def test_rows_that_failed_are_nan(served: EvaluationServer, workers: RemoteWorkers) -> None:
    images = IMAGES.copy()
    images[:, 0, 0, 0] = np.arange(40)
    served.pool.faults.bad_pixels = frozenset({3})
    for rows in (
        await workers.embed(pinned("reader"), images),
        await workers.classify(pinned("reader"), images),
    ):
        assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [3]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"digest": "sha256:" + "0" * 64}, Retired),
        ({"numerics": "other"}, Retired),
        ({"name": "unknown"}, UnknownName),
    ],
    ids=["digest", "numerics", "name"],
)
async def test_models_that_are_not_served_have_their_own_errors(
    workers: RemoteWorkers, changed: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await draw(workers, replace(pinned("painter"), **changed))
    with pytest.raises(error):
        await workers.embed(replace(pinned("reader"), **changed), IMAGES)


async def test_absent_workers_are_not_ready_at_once(served: EvaluationServer, workers: RemoteWorkers) -> None:
    served.pool.set_up(up=False)
    async with asyncio.timeout(5):
        with pytest.raises(NotReady):
            await draw(workers, pinned("painter"))
        with pytest.raises(NotReady):
            await workers.classify(pinned("reader"), IMAGES)


async def test_a_worker_that_refuses_is_a_fault(served: EvaluationServer, workers: RemoteWorkers) -> None:
    served.pool.faults.refused_indices = frozenset({6})
    with pytest.raises(WorkerFault):
        await draw(workers, pinned("painter"))


# --- Broken calls -----------------------------------------------------------------------------------------------------


async def test_an_absent_gateway_is_not_ready() -> None:
    workers = RemoteWorkers("127.0.0.1:1", retry=SOON)
    with pytest.raises(NotReady):
        await workers.embed(pinned("reader"), IMAGES)
    await workers.close()


async def test_a_busy_gateway_names_a_delay(tmp_path: Path) -> None:
    async with serve_evaluations(tmp_path, max_streams=1) as served:
        served.pool.faults.delay_s = 1
        workers = RemoteWorkers(served.server, retry=SOON, timeout_s=0.3)
        reading = asyncio.ensure_future(served.reading.Read(request(), timeout=20))
        while not served.pool.running:
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded) as refusal:
            await workers.embed(pinned("reader"), IMAGES)
        assert refusal.value.retry_after_s > 0
        reading.cancel()
        await workers.close()


async def test_a_lost_worker_is_not_visible(served: EvaluationServer) -> None:
    workers = RemoteWorkers(served.server, retry=SOON)
    served.pool.faults.lose_calls = 1
    assert len(await workers.embed(pinned("reader"), IMAGES)) == 40
    await workers.close()


async def test_images_are_split_into_messages_that_a_gateway_accepts(
    served: EvaluationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.workers.memory.memory_embed", lambda item: np.zeros((item.count, 1), np.float32))
    large = np.zeros((9, 1200, 1000, 1), np.uint8)
    served.pool.models.append(replace(READER, key=replace(READER.key, name="large"), sample_dims=(1200, 1000, 1)))
    workers = RemoteWorkers(served.server, retry=SOON)
    features = await workers.embed(replace(pinned("reader"), name="large"), large)
    assert len(features) == 9
    embedded = [call for call in served.pool.calls if call.operation is Operation.EMBED]
    assert sum(item.count for call in embedded for item in call.items) == 9
    await workers.close()
