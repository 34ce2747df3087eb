"""Whole arrays through the scheduler, with the in-memory workers behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from service.caller import Caller, CallerLimits
from service.config import GatewayConfig
from service.domain import Dtype, Operation, Parameters, RangeItem, Rows, ServedModel, Target, TensorItem
from service.errors import NotReady, Overloaded, TooLate, WorkerFault
from service.scheduler.inference import InferenceClient, RequestContext
from service.scheduler.scheduler import BatchingScheduler
from service.scheduler.work import TensorFeed, Work
from service.telemetry.metrics import Metrics
from service.workers.memory import MemoryPool, memory_model, memory_sample
from service.workers.memory_models import memory_embed

CALLER = Caller(subject="a", grants=frozenset({"*"}))
ASKED = RequestContext(caller=CALLER)
GENERATOR = memory_model("toy")
CLASSIFIER = memory_model("judge", operations=frozenset({Operation.CLASSIFY}))
TRANSFORMS = memory_model("transforms", labels=(), operations=frozenset({Operation.TRANSFORM}))
BOTH = memory_model("both", operations=frozenset({Operation.CLASSIFY, Operation.TRANSFORM, Operation.SAMPLE}))
EYES = memory_model("eyes", operations=frozenset({Operation.EMBED}))
PICTURES = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3, 1)


def target(model: ServedModel) -> Target:
    return Target(model=model.key, numerics="memory")


class Asker:
    """An InferenceClient over the in-memory pool, with the models filled in."""

    def __init__(self, pool: MemoryPool, scheduler: BatchingScheduler) -> None:
        self.pool, self.scheduler, self.inference = pool, scheduler, InferenceClient(scheduler)

    async def sample(self, indices, labels=None, context: RequestContext = ASKED, parameters: Parameters | None = None):
        indices = np.asarray(indices, np.uint64)
        labels = np.ones(len(indices), np.uint32) if labels is None else np.asarray(labels, np.uint32)
        return await self.inference.sample(
            target(GENERATOR), GENERATOR, seed=7, indices=indices, labels=labels,
            parameters=parameters or Parameters(), context=context,
        )  # fmt: skip

    async def classify(self, images, context: RequestContext = ASKED, model: ServedModel = CLASSIFIER):
        return await self.inference.classify(target(model), model, images, context)

    async def embed(self, images, context: RequestContext = ASKED):
        return await self.inference.embed(target(EYES), EYES, images, context)

    async def transform(self, images, table, context: RequestContext = ASKED, model: ServedModel = TRANSFORMS):
        table = np.asarray(table, np.float32)
        indices = np.arange(len(images), dtype=np.uint64)[::-1].copy()
        return await self.inference.transform(
            target(model), model, images, table, seed=7, indices=indices, context=context
        )


@asynccontextmanager
async def inference(**settings) -> AsyncIterator[Asker]:
    pool = MemoryPool(models=[GENERATOR, CLASSIFIER, TRANSFORMS, BOTH, EYES])
    scheduler = BatchingScheduler(pool, GatewayConfig(**settings), Metrics("0"))
    await pool.start()
    yield Asker(pool, scheduler)
    await scheduler.close()


def sample(index: int, label: int = 1) -> np.ndarray:
    labels = np.array([label], np.uint32)
    item = RangeItem(seed=7, start_index=index, count=1, labels=labels, dtype=Dtype.UINT8)
    return memory_sample(GENERATOR, item)[0]


async def test_samples_are_those_of_their_addresses_in_any_order() -> None:
    async with inference() as asker:
        drawn = await asker.sample([9, 2**40, 9, 3], labels=[0, 1, 2, 1])
        expected = [sample(9, 0), sample(2**40, 1), sample(9, 2), sample(3, 1)]
        assert np.array_equal(drawn.images, np.stack(expected))
        assert not drawn.failures


async def test_many_slices_come_back_in_order() -> None:
    async with inference(window_bytes=1 << 12, max_batch_ms=1, bulk_batch_ms=1) as asker:
        indices = np.random.default_rng(1).permutation(5000)
        drawn = await asker.sample(indices)
        assert len(asker.pool.calls) > 5
        whole = await asker.sample(np.arange(5000))
        assert np.array_equal(drawn.images, whole.images[indices])


async def test_nothing_is_asked_for_nothing() -> None:
    async with inference() as asker:
        drawn = await asker.sample([])
        assert (drawn.images.shape, len(asker.pool.calls)) == ((0, 2, 3, 1), 0)


async def test_rows_that_failed_are_named_by_their_place() -> None:
    async with inference() as asker:
        asker.pool.faults.bad_indices = frozenset({30})
        drawn = await asker.sample([5, 30, 6, 30])
        assert {row: each.reason for row, each in drawn.failures.items()} == {1: "NOT_FINITE", 3: "NOT_FINITE"}
        assert not drawn.images[[1, 3]].any()


async def test_images_are_classified() -> None:
    async with inference() as asker:
        images = np.zeros((3, 2, 3, 1), np.uint8)
        images[:, 0, 0, 0] = [2, 0, 99]
        probabilities = await asker.classify(images)
        assert probabilities.dtype == np.float32
        expected = [[0.05, 0.05, 0.9], [0.9, 0.05, 0.05], [1 / 3, 1 / 3, 1 / 3]]
        assert probabilities == pytest.approx(np.array(expected), abs=1e-6)


async def test_images_are_embedded() -> None:
    async with inference() as asker:
        features = await asker.embed(PICTURES)
        assert (features.dtype, features.shape) == (np.float32, (5, 8))
        assert np.array_equal(features, memory_embed(TensorItem(rows=PICTURES)))
        assert len(np.unique(features[:, 0])) == 5


async def test_no_images_have_no_features() -> None:
    async with inference() as asker:
        assert ((await asker.embed(PICTURES[:0])).shape, len(asker.pool.calls)) == ((0, 0), 0)


async def test_features_of_many_slices_come_back_in_order_the_first_time_and_later() -> None:
    async with inference(window_bytes=1 << 12, max_batch_ms=1, bulk_batch_ms=1) as asker:
        images = np.random.default_rng(1).integers(0, 256, (1200, 2, 3, 1), dtype=np.uint8)
        expected = memory_embed(TensorItem(rows=images))
        for _ in range(2):  # the width is known the second time
            assert np.array_equal(await asker.embed(images), expected)
        assert len(asker.pool.calls) > 5


async def test_a_row_that_was_not_embedded_is_nan() -> None:
    async with inference() as asker:
        asker.pool.faults.bad_pixels = frozenset({6})
        features = await asker.embed(PICTURES)
        assert np.isnan(features).all(axis=1).tolist() == [False, True, False, False, False]


async def test_features_of_another_width_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with inference() as asker:
        await asker.embed(PICTURES)
        monkeypatch.setattr("service.workers.memory.memory_embed", lambda item: np.zeros((item.count, 9), np.float32))
        with pytest.raises(WorkerFault, match="rows of another size"):
            await asker.embed(PICTURES)


@pytest.mark.parametrize("shape", [(2, 4), ()], ids=["a map", "nothing"])
async def test_what_is_no_list_of_features_is_a_fault(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    async with inference() as asker:
        made = lambda item: np.zeros((item.count, *shape), np.float32)  # noqa: E731
        monkeypatch.setattr("service.workers.memory.memory_embed", made)
        with pytest.raises(WorkerFault, match="and float32 rows of one number of features were requested"):
            await asker.embed(PICTURES)


async def test_images_are_transformed_as_their_line_of_the_table_says() -> None:
    async with inference() as asker:
        made = await asker.transform(PICTURES, [[0.0, 0.0], [0.01, 0.02], [0, 0], [0, 0], [2.56, 0]])
        assert np.array_equal(made[[0, 2, 3, 4]], PICTURES[[0, 2, 3, 4]])
        assert (made[1].ravel() - PICTURES[1].ravel()).tolist() == [0, 3, 3, 3, 3, 3]


async def test_a_row_that_cannot_be_transformed_is_an_error() -> None:
    async with inference() as asker:
        asker.pool.faults.bad_indices = frozenset({4})
        with pytest.raises(WorkerFault, match="row 0 could not be transformed"):
            await asker.transform(PICTURES, np.zeros((5, 2)))


async def test_operations_and_shapes_never_share_a_call() -> None:
    async with inference() as asker:
        asker.pool.faults.delay_s = 0.02
        wide = PICTURES.reshape(5, 3, 2, 1)
        await asyncio.gather(
            *(asker.classify(PICTURES, model=BOTH) for _ in range(3)),
            *(asker.transform(PICTURES, np.zeros((5, 2)), model=BOTH) for _ in range(3)),
            *(asker.transform(wide, np.zeros((5, 2)), model=BOTH) for _ in range(3)),
        )
        for call in asker.pool.calls:
            assert len({(type(item), item.rows.shape[1:]) for item in call.items}) == 1
        assert len(asker.pool.calls) < 9  # equal ones do


async def test_a_call_holds_no_more_image_bytes_than_a_message_should() -> None:
    async with inference() as asker:
        images = np.ones((20, 512, 1024, 1), np.uint8)  # half a MiB each; their classes are twelve bytes
        await asker.classify(images)
        sent = [sum(item.rows.nbytes for item in call.items) for call in asker.pool.calls]
        assert max(sent) <= 8 << 20
        assert len(sent) <= 4


async def test_large_pictures_count_for_what_they_cost() -> None:
    async with inference(bulk_batch_ms=20) as asker:  # twenty rows of the card's size, at a millisecond each
        asker.pool.batch_seconds = {1: 1e-3}
        await asker.transform(np.zeros((40, 4, 6, 1), np.uint8), np.zeros((40, 2)))  # four times as large
        assert max(item.count for call in asker.pool.calls for item in call.items) <= 6


async def test_an_array_is_not_begun_with_short_calls() -> None:
    async with inference(max_batch_ms=1, bulk_batch_ms=1000) as asker:
        await asker.sample(range(2000))
        assert [item.count for call in asker.pool.calls for item in call.items] == [2000]


@pytest.mark.parametrize("fault", ["busy_calls", "lose_calls"])
async def test_calls_that_are_lost_are_made_again(fault: str) -> None:
    async with inference() as asker:
        setattr(asker.pool.faults, fault, 2)
        made = await asker.transform(PICTURES, np.zeros((5, 2)))
        assert np.array_equal(made, PICTURES)
        assert len(asker.pool.calls) >= 3


async def test_an_answer_of_another_shape_is_the_workers_fault(monkeypatch) -> None:
    def turned(self, model, call, item):
        return Rows(array=np.zeros((item.count, 3, 2, 1), np.uint8), failures={})

    async with inference() as asker:
        monkeypatch.setattr(MemoryPool, "_outcome", turned)
        with pytest.raises(WorkerFault, match="3, 2, 1"):
            await asker.transform(PICTURES, np.zeros((5, 2)))
        with pytest.raises(WorkerFault, match="another size"):
            await asker.classify(PICTURES)


BUSY = replace(ASKED, caller=replace(CALLER, limits=CallerLimits(max_streams=1)))


@asynccontextmanager
async def full_gateway(asker: Asker, seconds: float) -> AsyncIterator[None]:
    """The caller's only place is taken for so long."""
    asker.pool.faults.delay_s = seconds
    feed = TensorFeed(rows=PICTURES)
    work = Work(
        target=target(CLASSIFIER), operation=Operation.CLASSIFY, feed=feed, count=5, sample_bytes=12, caller=BUSY.caller
    )

    async def read() -> None:
        async for _ in asker.scheduler.run(work):
            pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    yield
    await reader


async def test_whoever_is_refused_comes_again() -> None:
    async with inference() as asker, full_gateway(asker, 0.3):
        assert len((await asker.sample([1, 2], context=BUSY)).images) == 2


async def test_the_first_work_of_a_request_may_be_refused() -> None:
    async with inference() as asker, full_gateway(asker, 0.3):
        with pytest.raises(Overloaded):
            await asker.sample([1, 2], context=replace(BUSY, retry_overloaded=False))


async def test_nobody_comes_again_after_the_deadline() -> None:
    async with inference() as asker, full_gateway(asker, 0.3):
        begun = time.monotonic()
        with pytest.raises(Overloaded):
            await asker.sample([1, 2], context=replace(BUSY, deadline_unix_s=time.time() + 0.5))
        assert time.monotonic() - begun < 0.2


async def test_a_deadline_ends_it() -> None:
    async with inference() as asker:
        asker.pool.faults.delay_s = 5
        with pytest.raises(TooLate, match="0 of 2 rows"):
            await asker.sample([1, 2], context=replace(ASKED, deadline_unix_s=time.time() + 0.1))


class RefusesInTheMiddle:
    """A scheduler that gives a piece and then has no room, twice."""

    def __init__(self, scheduler: BatchingScheduler) -> None:
        self.scheduler, self.begun = scheduler, []

    async def run(self, work: Work):
        self.begun.append(work.start_index)
        async for piece in self.scheduler.run(replace(work, count=min(2, work.count))):
            yield piece
        if len(self.begun) < 3:
            raise Overloaded("no memory", retry_after_s=0.01)


async def test_work_that_has_begun_goes_on_where_it_was() -> None:
    async with inference() as asker:
        middle = RefusesInTheMiddle(asker.scheduler)
        asker.inference = InferenceClient(middle)
        drawn = await asker.sample([9, 8, 7, 6, 5, 4], context=replace(ASKED, retry_overloaded=False))
        assert middle.begun == [0, 2, 4]
        assert np.array_equal(drawn.images, np.stack([sample(index) for index in (9, 8, 7, 6, 5, 4)]))


async def test_many_arrays_of_one_caller_leave_nothing_behind() -> None:
    async with inference() as asker:
        table = np.zeros((5, 2))
        await asyncio.gather(*(asker.transform(PICTURES, table) for _ in range(50)))
        assert (asker.scheduler.buffer.streams, asker.scheduler.buffer.held) == (0, 0)
        assert not asker.scheduler.open_streams


async def test_a_cancelled_array_is_forgotten() -> None:
    async with inference() as asker:
        asker.pool.faults.delay_s = 0.2
        task = asyncio.create_task(asker.sample([1, 2]))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not asker.scheduler.open_streams


async def test_a_gateway_that_stops_says_so() -> None:
    async with inference() as asker:
        asker.pool.faults.delay_s = 0.2
        task = asyncio.create_task(asker.sample([1, 2]))
        await asyncio.sleep(0.05)
        await asker.scheduler.close()
        with pytest.raises(NotReady, match="stopping"):
            await task


async def test_draws_of_many_steps_are_cut_with_indices_of_their_own() -> None:
    async with inference(max_batch_ms=20, bulk_batch_ms=20) as asker:
        asker.pool.faults.sample_s = 1e-3
        asker.pool.batch_seconds = {1: 1e-3}
        drawn = await asker.sample([9, 3, 5], parameters=Parameters(steps=40))
        assert any(call.step_limit for call in asker.pool.calls)
        assert np.array_equal(drawn.images, np.stack([sample(index) for index in (9, 3, 5)]))
