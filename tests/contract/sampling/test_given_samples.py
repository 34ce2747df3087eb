"""Samples given their beginning or a part of a picture, and streams that report progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from fount.v1 import model_pb2, sampling_pb2
from service.calls import RangeItem
from service.domain import ConditionKind, Operation
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import Running, data, fields, request, serving_slowly
from tests.waiting import until

PREFIX, MASK = frozenset({ConditionKind.PREFIX}), frozenset({ConditionKind.MASK})
BOTH = frozenset({Operation.SAMPLE, Operation.DECODE})
SIZE, TEXT_BYTES = 6, 16
IMAGE = np.arange(10, 10 + SIZE, dtype=np.uint8)
KEPT = np.array([0, 1, 1, 0, 0, 1], np.uint8)
Rows, Condition = sampling_pb2.InputRows, sampling_pb2.Condition


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    models = [
        memory_model("verse", labels=(), max_text_bytes=TEXT_BYTES, conditions=PREFIX, draw_steps=8),
        memory_model("rows", conditions=PREFIX, prefix_unit=3, draw_steps=8),
        memory_model("pictures", labels=(), operations=BOTH, latent_dim=2, conditions=MASK, draw_steps=8),
        memory_model("plain", labels=()),
    ]
    async with serving_slowly(MemoryPool(models=models), max_batch_ms=2, bulk_batch_ms=4) as found:
        yield found


def asked(name: str, count: int = 3, **more) -> sampling_pb2.SampleRequest:
    fields_of = {key: more.pop(key) for key in ("stop", "progress", "start_index", "encoding") if key in more}
    condition = Condition(**more) if more else None
    return request(count, model=model_pb2.ModelRef(name=name), condition=condition, **fields_of)


def image(*rows: np.ndarray) -> sampling_pb2.InputRows:
    return Rows(count=len(rows), data=b"".join(row.tobytes() for row in rows))


async def pictures(running: Running, wanted: sampling_pb2.SampleRequest) -> np.ndarray:
    _, chunks = await running.sample(wanted)
    return np.frombuffer(data(chunks), np.uint8).reshape(-1, SIZE)


async def test_a_text_begins_with_its_prefix_and_goes_on_as_without(running: Running) -> None:
    (_, free), (_, given) = [await running.sample(asked("verse", **each)) for each in ({}, {"prefix": "äh".encode()})]
    for start, (one, other) in enumerate(zip(split(free), split(given), strict=True)):
        assert other.startswith("äh".encode()), start
        assert other[3:] == one[3:], start


async def test_stop_is_not_searched_for_within_the_prefix(running: Running) -> None:
    _, chunks = await running.sample(asked("verse", count=1, prefix=b"ab", stop="b"))
    assert split(chunks)[0].startswith(b"ab")


async def test_the_first_pixels_are_those_of_the_prefix(running: Running) -> None:
    label = sampling_pb2.LabelRef(id=1)
    free, given = [
        await pictures(running, asked("rows", label=label, **each)) for each in ({}, {"prefix": IMAGE[:3].tobytes()})
    ]
    assert (given[:, :3] == IMAGE[:3]).all()
    assert np.array_equal(given[:, 3:], free[:, 3:])


async def test_a_masked_picture_keeps_what_is_given(running: Running) -> None:
    free = await pictures(running, asked("pictures"))
    given = await pictures(running, asked("pictures", image=image(IMAGE), mask=image(KEPT)))
    assert np.array_equal(given, np.where(KEPT == 1, IMAGE, free))


async def test_every_sample_can_have_a_picture_and_a_mask_of_its_own(running: Running) -> None:
    rows, masks = (IMAGE, IMAGE + 1, IMAGE + 2), (KEPT, 1 - KEPT, KEPT)
    given = await pictures(running, asked("pictures", start_index=5, image=image(*rows), mask=image(*masks)))
    free = await pictures(running, asked("pictures", start_index=5))
    assert np.array_equal(given, np.where(np.stack(masks) == 1, np.stack(rows), free))


async def test_draws_with_given_values_are_preempted_like_any_other(running: Running) -> None:
    await pictures(running, asked("pictures", image=image(IMAGE), mask=image(KEPT)))
    first, *later = running.pool.calls
    assert first.items[0].mask is not None
    resumed = [each for call in later for each in call.items if isinstance(each, RangeItem)]
    assert len(resumed) >= 2
    assert all(each.resume_from.state.shape[1] == 1 + SIZE for each in resumed)


async def test_steps_of_given_values_do_not_teach_what_a_step_costs(running: Running) -> None:
    running.pool.faults.sample_s = 1e-5
    await pictures(running, asked("pictures", count=30, image=image(IMAGE), mask=image(KEPT)))
    (backlog,) = running.gateway.scheduler._backlogs.values()
    assert backlog.costs(Operation.SAMPLE).per_unit_s == pytest.approx(0.001)
    await pictures(running, asked("pictures", count=30))
    assert backlog.costs(Operation.SAMPLE).per_unit_s < 0.001


async def test_a_row_for_all_samples_travels_once(running: Running) -> None:
    await pictures(running, asked("pictures", count=100, image=image(IMAGE), mask=image(KEPT)))
    assert all(each.rows.strides[0] == 0 for call in running.pool.calls for each in call.items if hasattr(each, "mask"))


async def test_a_stream_reports_the_steps_that_are_done(running: Running) -> None:
    responses = [each async for each in running.sampling.Sample(asked("pictures", count=3, progress=True))]
    kinds = [each.WhichOneof("kind") for each in responses]
    done = [each.progress.steps_done for each in responses if each.HasField("progress")]
    assert (kinds[0], kinds[-1]) == ("header", "chunk")
    assert len(done) >= 2
    assert done == sorted(set(done))
    assert all(each.progress.steps_total == 3 * 8 for each in responses if each.HasField("progress"))
    silent = [each async for each in running.sampling.Sample(asked("pictures", count=3))]
    assert [each for each in responses if not each.HasField("progress")] == silent


async def test_a_reader_that_leaves_ends_the_draw_between_two_steps(running: Running) -> None:
    call = running.sampling.Sample(asked("pictures", count=1000, progress=True))
    async for each in call:
        if each.HasField("progress"):
            break
    call.cancel()
    await until(lambda: not running.gateway.scheduler.open_streams and not running.pool.running)
    calls = len(running.pool.calls)
    await asyncio.sleep(0.05)
    assert len(running.pool.calls) == calls


LATENT = Rows(count=1, data=np.zeros(2, np.float32).tobytes())
REFUSED = {
    "prefix of a model that takes none": (asked("plain", prefix=b"a"), "condition.prefix", "takes no prefix"),
    "mask of a model that takes none": (asked("rows", image=image(IMAGE), mask=image(KEPT)), "condition.image", "no"),
    "prefix that is empty": (asked("verse", prefix=b""), "condition.prefix", "empty"),
    "prefix beyond the context": (asked("verse", prefix=b"a" * 17), "condition.prefix", "17 bytes"),
    "prefix that is not UTF-8": (asked("verse", prefix=b"ab\xff"), "condition.prefix", "from byte 2"),
    "prefix cut by the context": (asked("verse", prefix=b"a" * 15 + "ä".encode()), "condition.prefix", "17 bytes"),
    "prefix cut in a character": (asked("verse", prefix="ä".encode()[:1]), "condition.prefix", "UTF-8"),
    "prefix with a zero": (asked("verse", prefix=b"a\0"), "condition.prefix", "zero byte at 1"),
    "prefix of half a row": (asked("rows", prefix=b"abcd"), "condition.prefix", "multiple of 3"),
    "image without mask": (asked("pictures", image=image(IMAGE)), "condition.mask", "missing"),
    "mask without image": (asked("pictures", mask=image(KEPT)), "condition.image", "missing"),
    "mask of another shape": (
        asked("pictures", image=image(IMAGE), mask=image(KEPT[:4])), "condition.mask.data", "2×3",
    ),
    "mask of other values": (
        asked("pictures", image=image(IMAGE), mask=image(2 * KEPT)), "condition.mask.data", "value 2",
    ),
    "mask of floats": (
        asked("pictures", image=image(IMAGE), mask=Rows(count=1, dtype=2, data=KEPT.astype("<f4").tobytes())),
        "condition.mask.dtype", "UINT8",
    ),
    "images for other samples": (
        asked("pictures", image=image(IMAGE, IMAGE), mask=image(KEPT)), "condition.image.count", "count is 3",
    ),
    "latent and image": (
        asked("pictures", latent=LATENT, image=image(IMAGE), mask=image(KEPT)), "condition.latent", "cannot go with",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "field", "words"), REFUSED.values(), ids=REFUSED)
async def test_it_refuses(running: Running, wrong: sampling_pb2.SampleRequest, field: str, words: str) -> None:
    error = await running.refused(wrong)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in fields(error)
    assert words in str(error.details()) + str(error)
    assert ("UTF-8" in str(error)) == ("UTF-8" in words or "from byte" in words)


def split(chunks) -> list[bytes]:
    texts = []
    for chunk in chunks:
        ends = np.cumsum(chunk.lengths).tolist()
        texts += [chunk.data[end - length : end] for end, length in zip(ends, chunk.lengths, strict=True)]
    return texts
