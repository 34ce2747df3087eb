"""The inference client: whole arrays through the scheduler to in-memory workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import numpy as np
import pytest

from service.caller import Caller, CallerLimits
from service.calls import RangeItem, Rows, TensorItem
from service.config import GatewayConfig
from service.domain import Dtype, Operation, Parameters, ServedModel, Target
from service.errors import NotReady, Overloaded, TooLate, WorkerFault
from service.scheduler.inference import GivenRows, InferenceClient
from service.scheduler.scheduler import BatchingScheduler
from service.scheduler.work import RequestContext, Work
from service.telemetry.metrics import Metrics
from service.workers.memory import MemoryPool, memory_model, memory_sample
from service.workers.memory_models import memory_embed

CALLER = Caller(subject="a", grants=frozenset({"*"}))
CONTEXT = RequestContext(caller=CALLER)
NO_PARAMETERS = Parameters()
GENERATOR = memory_model("toy")
CLASSIFIER = memory_model("classifier", operations=frozenset({Operation.CLASSIFY}))
TRANSFORMS = memory_model("transforms", labels=(), operations=frozenset({Operation.TRANSFORM}))
BOTH = memory_model("both", operations=frozenset({Operation.CLASSIFY, Operation.TRANSFORM, Operation.SAMPLE}))
SCORER = memory_model("scorer", operations=frozenset({Operation.SCORE}), score_columns=("a",))
EXTRACTOR = memory_model("extractor", operations=frozenset({Operation.EMBED}))
IMAGES = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3, 1)


def target(model: ServedModel) -> Target:
    return Target(model=model.key, numerics="memory")


class Models:
    """An InferenceClient over the in-memory pool, with the models filled in."""

    def __init__(self, pool: MemoryPool, scheduler: BatchingScheduler) -> None:
        self.pool, self.scheduler, self.inference = pool, scheduler, InferenceClient(scheduler)

    async def sample(
        self, indices, labels=None, context: RequestContext = CONTEXT, parameters: Parameters = NO_PARAMETERS
    ):
        indices = np.asarray(indices, np.uint64)
        labels = np.ones(len(indices), np.uint32) if labels is None else np.asarray(labels, np.uint32)
        array, failures = await self.inference.sample(
            target(GENERATOR), GENERATOR, seed=7, indices=indices, labels=labels,
            parameters=parameters, context=context,
        )  # fmt: skip
        return Rows(array=array, failures=failures)

    async def classify(self, images, context: RequestContext = CONTEXT, model: ServedModel = CLASSIFIER):
        return await self.inference.classify(target(model), model, images, context)

    async def embed(self, images, context: RequestContext = CONTEXT):
        return await self.inference.embed(target(EXTRACTOR), EXTRACTOR, images, context)

    async def transform(self, images, table, context: RequestContext = CONTEXT, model: ServedModel = TRANSFORMS):
        table = np.asarray(table, np.float32)
        indices = np.arange(len(images), dtype=np.uint64)[::-1].copy()
        return await self.inference.transform(
            target(model), model, images, table, seed=7, indices=indices, context=context
        )


@asynccontextmanager
async def inference(**settings) -> AsyncIterator[Models]:
    pool = MemoryPool(models=[GENERATOR, CLASSIFIER, TRANSFORMS, BOTH, EXTRACTOR, SCORER])
    scheduler = BatchingScheduler(pool, GatewayConfig(**settings), Metrics("0"))
    await pool.start()
    yield Models(pool, scheduler)
    await scheduler.close()


def sample(index: int, label: int = 1) -> np.ndarray:
    labels = np.array([label], np.uint32)
    item = RangeItem(seed=7, start_index=index, count=1, labels=labels, dtype=Dtype.UINT8)
    return memory_sample(GENERATOR, item)[0]


async def test_samples_are_those_of_their_addresses_in_any_order() -> None:
    async with inference() as models:
        drawn = await models.sample([9, 2**40, 9, 3], labels=[0, 1, 2, 1])
        expected = [sample(9, 0), sample(2**40, 1), sample(9, 2), sample(3, 1)]
        assert np.array_equal(drawn.array, np.stack(expected))
        assert not drawn.failures


async def test_many_slices_are_returned_in_order() -> None:
    async with inference(window_bytes=1 << 12, max_batch_ms=1, bulk_batch_ms=1) as models:
        indices = np.random.default_rng(1).permutation(5000)
        drawn = await models.sample(indices)
        assert len(models.pool.calls) > 5
        whole = await models.sample(np.arange(5000))
        assert np.array_equal(drawn.array, whole.array[indices])


async def test_no_indices_need_no_call() -> None:
    async with inference() as models:
        drawn = await models.sample([])
        assert (drawn.array.shape, len(models.pool.calls)) == ((0, 2, 3, 1), 0)


async def test_failed_rows_are_listed_by_position() -> None:
    async with inference() as models:
        models.pool.faults.bad_indices = frozenset({30})
        drawn = await models.sample([5, 30, 6, 30])
        assert {row: each.reason for row, each in drawn.failures.items()} == {1: "NOT_FINITE", 3: "NOT_FINITE"}
        assert not drawn.array[[1, 3]].any()


async def test_images_are_classified() -> None:
    async with inference() as models:
        images = np.zeros((3, 2, 3, 1), np.uint8)
        images[:, 0, 0, 0] = [2, 0, 99]
        probabilities = await models.classify(images)
        assert probabilities.dtype == np.float32
        expected = [[0.05, 0.05, 0.9], [0.9, 0.05, 0.05], [1 / 3, 1 / 3, 1 / 3]]
        assert probabilities == pytest.approx(np.array(expected), abs=1e-6)


async def test_images_are_embedded() -> None:
    async with inference() as models:
        features = await models.embed(IMAGES)
        assert (features.dtype, features.shape) == (np.float32, (5, 8))
        assert np.array_equal(features, memory_embed(TensorItem(rows=IMAGES)))
        assert len(np.unique(features[:, 0])) == 5


async def test_no_images_have_no_features() -> None:
    async with inference() as models:
        assert ((await models.embed(IMAGES[:0])).shape, len(models.pool.calls)) == ((0, 0), 0)


async def test_features_of_many_slices_are_returned_in_order_with_known_and_unknown_width() -> None:
    async with inference(window_bytes=1 << 12, max_batch_ms=1, bulk_batch_ms=1) as models:
        images = np.random.default_rng(1).integers(0, 256, (1200, 2, 3, 1), dtype=np.uint8)
        expected = memory_embed(TensorItem(rows=images))
        for _ in range(2):  # the width is known the second time
            assert np.array_equal(await models.embed(images), expected)
        assert len(models.pool.calls) > 5


async def test_a_row_that_was_not_embedded_is_nan() -> None:
    async with inference() as models:
        models.pool.faults.bad_pixels = frozenset({6})
        features = await models.embed(IMAGES)
        assert np.isnan(features).all(axis=1).tolist() == [False, True, False, False, False]


async def test_features_of_another_width_are_a_worker_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with inference() as models:
        await models.embed(IMAGES)
        monkeypatch.setattr("service.workers.memory.memory_embed", lambda item: np.zeros((item.count, 9), np.float32))
        with pytest.raises(WorkerFault, match="rows of another size"):
            await models.embed(IMAGES)


@pytest.mark.parametrize("shape", [(2, 4), ()], ids=["a map", "nothing"])
async def test_rows_of_another_rank_are_a_worker_fault(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    async with inference() as models:
        result = lambda item: np.zeros((item.count, *shape), np.float32)  # noqa: E731
        monkeypatch.setattr("service.workers.memory.memory_embed", result)
        with pytest.raises(WorkerFault, match="and float32 rows of one number of features were requested"):
            await models.embed(IMAGES)


async def test_images_are_transformed_by_their_row_of_the_table() -> None:
    async with inference() as models:
        result = await models.transform(IMAGES, [[0.0, 0.0], [0.01, 0.02], [0, 0], [0, 0], [2.56, 0]])
        assert np.array_equal(result[[0, 2, 3, 4]], IMAGES[[0, 2, 3, 4]])
        assert (result[1].ravel() - IMAGES[1].ravel()).tolist() == [0, 3, 3, 3, 3, 3]


async def test_a_row_that_cannot_be_transformed_is_an_error() -> None:
    async with inference() as models:
        models.pool.faults.bad_indices = frozenset({4})
        with pytest.raises(WorkerFault, match="row 0 could not be transformed"):
            await models.transform(IMAGES, np.zeros((5, 2)))


async def test_operations_and_shapes_never_share_a_call() -> None:
    async with inference() as models:
        models.pool.faults.delay_s = 0.02
        wide = IMAGES.reshape(5, 3, 2, 1)
        await asyncio.gather(
            *(models.classify(IMAGES, model=BOTH) for _ in range(3)),
            *(models.transform(IMAGES, np.zeros((5, 2)), model=BOTH) for _ in range(3)),
            *(models.transform(wide, np.zeros((5, 2)), model=BOTH) for _ in range(3)),
        )
        for call in models.pool.calls:
            assert len({(type(item), item.rows.shape[1:]) for item in call.items}) == 1
        assert len(models.pool.calls) < 9  # equal ones do


async def test_the_image_bytes_of_a_call_are_limited() -> None:
    async with inference() as models:
        images = np.ones((20, 512, 1024, 1), np.uint8)  # half a MiB each; their classes are twelve bytes
        await models.classify(images)
        sent = [sum(item.rows.nbytes for item in call.items) for call in models.pool.calls]
        assert max(sent) <= 8 << 20
        assert len(sent) <= 4


async def test_large_images_count_by_their_cost() -> None:
    async with inference(bulk_batch_ms=20) as models:  # twenty rows of the card's size, at a millisecond each
        models.pool.batch_seconds = {1: 1e-3}
        await models.transform(np.zeros((40, 4, 6, 1), np.uint8), np.zeros((40, 2)))  # four times as large
        assert max(item.count for call in models.pool.calls for item in call.items) <= 6


@pytest.mark.parametrize("importance_samples", [None, 10])
async def test_scores_count_by_their_importance_samples(importance_samples: int | None) -> None:
    async with inference(bulk_batch_ms=20) as models:  # twenty rows of one latent, at a millisecond each
        models.pool.batch_seconds = {1: 1e-3}
        rows = np.zeros((40, 2, 3, 1), np.uint8)
        given = GivenRows(rows=rows, labels=None, seed=7, indices=np.arange(40, dtype=np.uint64))
        parameters = Parameters(importance_samples=importance_samples)
        await models.inference.score(target(SCORER), SCORER, given, parameters, CONTEXT)
        largest = max(item.count for call in models.pool.calls for item in call.items)
        assert largest == (20 if importance_samples is None else 2)


@pytest.mark.parametrize(("steps", "largest"), [(None, 2), (1, 20)], ids=["of-the-card", "of-the-request"])
async def test_draws_count_by_their_steps(steps: int | None, largest: int) -> None:
    async with inference(bulk_batch_ms=20) as models:
        models.pool.batch_seconds = {1: 1e-3}  # of a step
        model = replace(GENERATOR, draw_steps=10)
        await models.inference.sample(
            target(model), model, seed=7, indices=np.arange(40, dtype=np.uint64), labels=np.ones(40, np.uint32),
            parameters=Parameters(steps=steps), context=CONTEXT,
        )  # fmt: skip
        assert max(item.count for call in models.pool.calls for item in call.items) == largest


async def test_an_array_does_not_start_with_short_calls() -> None:
    async with inference(max_batch_ms=1, bulk_batch_ms=1000) as models:
        await models.sample(range(2000))
        assert [item.count for call in models.pool.calls for item in call.items] == [2000]


@pytest.mark.parametrize("fault", ["busy_calls", "lose_calls"])
async def test_lost_calls_are_repeated(fault: str) -> None:
    async with inference() as models:
        setattr(models.pool.faults, fault, 2)
        result = await models.transform(IMAGES, np.zeros((5, 2)))
        assert np.array_equal(result, IMAGES)
        assert len(models.pool.calls) >= 3


async def test_a_result_of_another_shape_is_a_worker_fault(monkeypatch) -> None:
    def turned(self, model, call, item):
        return Rows(array=np.zeros((item.count, 3, 2, 1), np.uint8), failures={})

    async with inference() as models:
        monkeypatch.setattr(MemoryPool, "_outcome", turned)
        with pytest.raises(WorkerFault, match="3, 2, 1"):
            await models.transform(IMAGES, np.zeros((5, 2)))
        with pytest.raises(WorkerFault, match="another size"):
            await models.classify(IMAGES)


BUSY = replace(CONTEXT, caller=replace(CALLER, limits=CallerLimits(max_streams=1)))


@asynccontextmanager
async def full_gateway(models: Models, seconds: float) -> AsyncIterator[None]:
    """Use the caller's only stream for so long."""
    models.pool.faults.delay_s = seconds
    feed = TensorItem(rows=IMAGES)
    work = Work(
        target=target(CLASSIFIER), operation=Operation.CLASSIFY, feed=feed, count=5, sample_bytes=12, context=BUSY
    )

    async def read() -> None:
        with closing(models.scheduler.open(work)) as pieces:
            async for _ in pieces:
                pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    yield
    await reader


async def test_refused_work_is_retried() -> None:
    async with inference() as models, full_gateway(models, 0.3):
        assert len((await models.sample([1, 2], context=BUSY)).array) == 2


async def test_the_first_work_of_a_request_can_be_refused() -> None:
    async with inference() as models, full_gateway(models, 0.3):
        with pytest.raises(Overloaded):
            await models.sample([1, 2], context=replace(BUSY, retry_overloaded=False))


async def test_refused_work_is_not_retried_after_the_deadline() -> None:
    async with inference() as models, full_gateway(models, 0.3):
        started = time.monotonic()
        with pytest.raises(Overloaded):
            await models.sample([1, 2], context=replace(BUSY, deadline_unix_s=time.time() + 0.5))
        assert time.monotonic() - started < 0.2


async def test_a_deadline_ends_the_work() -> None:
    async with inference() as models:
        models.pool.faults.delay_s = 5
        with pytest.raises(TooLate, match="0 of 2 rows"):
            await models.sample([1, 2], context=replace(CONTEXT, deadline_unix_s=time.time() + 0.1))


class RefusingScheduler:
    """A scheduler that refuses a stream after its first piece, twice."""

    def __init__(self, scheduler: BatchingScheduler) -> None:
        self.scheduler, self.starts = scheduler, []

    def open(self, work: Work) -> RefusingScheduler:
        self.starts.append(work.start_index)
        self.stream = self.scheduler.open(replace(work, count=min(2, work.count)))
        return self

    async def __aiter__(self):
        async for piece in self.stream:
            yield piece
        if len(self.starts) < 3:
            raise Overloaded("no memory", retry_after_s=0.01)

    def close(self) -> None:
        self.stream.close()


async def test_started_work_resumes_after_a_refusal() -> None:
    async with inference() as models:
        refusing = RefusingScheduler(models.scheduler)
        models.inference = InferenceClient(refusing)
        drawn = await models.sample([9, 8, 7, 6, 5, 4], context=replace(CONTEXT, retry_overloaded=False))
        assert refusing.starts == [0, 2, 4]
        assert np.array_equal(drawn.array, np.stack([sample(index) for index in (9, 8, 7, 6, 5, 4)]))


async def test_the_streams_of_finished_arrays_are_removed() -> None:
    async with inference() as models:
        table = np.zeros((5, 2))
        await asyncio.gather(*(models.transform(IMAGES, table) for _ in range(50)))
        assert (models.scheduler.buffer.streams, models.scheduler.buffer.held) == (0, 0)
        assert not models.scheduler.open_streams


async def test_the_stream_of_a_cancelled_array_is_removed() -> None:
    async with inference() as models:
        models.pool.faults.delay_s = 0.2
        task = asyncio.create_task(models.sample([1, 2]))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not models.scheduler.open_streams


async def test_a_stopping_scheduler_fails_the_work() -> None:
    async with inference() as models:
        models.pool.faults.delay_s = 0.2
        task = asyncio.create_task(models.sample([1, 2]))
        await asyncio.sleep(0.05)
        await models.scheduler.close()
        with pytest.raises(NotReady, match="stopping"):
            await task


async def test_draws_of_many_steps_are_preempted_with_their_indices() -> None:
    async with inference(max_batch_ms=20, bulk_batch_ms=20) as models:
        models.pool.faults.sample_s = 1e-3
        models.pool.batch_seconds = {1: 1e-3}
        drawn = await models.sample([9, 3, 5], parameters=Parameters(steps=40))
        assert any(call.step_limit for call in models.pool.calls)
        assert np.array_equal(drawn.array, np.stack([sample(index) for index in (9, 3, 5)]))
