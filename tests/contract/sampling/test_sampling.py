"""Sampling through a real gateway: addresses, conditions, encodings, chunks."""

from __future__ import annotations

import asyncio
import io
import random

import numpy as np
import pytest
from PIL import Image

from fount.v1 import model_pb2, sampling_pb2
from service.calls import RangeItem
from service.domain import Dtype
from service.workers.memory import MemoryPool, memory_model, memory_sample
from tests.contract.gateways import TOY, data, label, labels, request, serving


async def test_the_header_contains_what_was_resolved(running) -> None:
    header, _ = await running.sample(request())
    assert (header.model.name, header.model.version, header.seed, header.numerics) == ("toy", "1", 7, "memory")
    assert list(header.sample_spec.dims) == [2, 3, 1]


async def test_samples_are_those_of_their_addresses(running) -> None:
    _, chunks = await running.sample(request(5, start_index=3, condition=label(2)))
    item = RangeItem(seed=7, start_index=3, count=5, labels=np.full(5, 2, np.uint32), dtype=Dtype.UINT8)
    assert data(chunks) == memory_sample(running.pool.models[0], item).tobytes()
    assert labels(chunks) == [2] * 5


async def test_any_split_gives_the_same_bytes_and_labels(running) -> None:
    _, whole = await running.sample(request(100))
    ranges = [(0, 1), (1, 9), (10, 50), (60, 40)]
    random.Random(0).shuffle(ranges)
    parts = {}
    for first, count in ranges:
        _, chunks = await running.sample(request(count, start_index=first))
        parts[first] = (data(chunks), labels(chunks))
    assert b"".join(parts[first][0] for first in sorted(parts)) == data(whole)
    assert [each for first in sorted(parts) for each in parts[first][1]] == labels(whole)


async def test_co_batched_requests_do_not_change_samples(running) -> None:
    _, alone = await running.sample(request(64))
    running.pool.faults.delay_s = 0.01
    unrelated = [running.sample(sampling_pb2.SampleRequest(model=TOY, count=k + 1)) for k in range(20)]
    ones = [running.sample(request(1, start_index=i)) for i in range(64)]
    answers = (await asyncio.gather(*unrelated, *ones))[20:]
    assert b"".join(data(chunks) for _, chunks in answers) == data(alone)
    assert any(len(call.items) > 1 for call in running.pool.calls)


async def test_a_missing_seed_is_drawn_and_returned(running) -> None:
    unseeded = sampling_pb2.SampleRequest(model=TOY, count=4)
    first, chunks = await running.sample(unseeded)
    second, _ = await running.sample(unseeded)
    assert first.seed != second.seed
    _, again = await running.sample(request(4, seed=first.seed))
    assert data(again) == data(chunks)


async def test_seed_zero_is_a_seed(running) -> None:
    header, _ = await running.sample(request(seed=0))
    assert header.seed == 0


async def test_the_last_index_can_be_drawn(running) -> None:
    _, chunks = await running.sample(request(2, start_index=2**64 - 2))
    assert chunks[0].start_index == 2**64 - 2
    assert sum(chunk.count for chunk in chunks) == 2


async def test_label_by_name_is_label_by_id(running) -> None:
    by_name = sampling_pb2.Condition(label=sampling_pb2.LabelRef(name="two"))
    assert await running.sample(request(condition=by_name)) == await running.sample(request(condition=label(2)))


@pytest.mark.parametrize(("text", "index"), [("2", 1), ("#2", 2), ("0", 0), ("#1", 1), ("cat", 2)])
async def test_a_label_is_a_name_first_and_then_an_index(text: str, index: int) -> None:
    pool = MemoryPool()
    pool.models[0] = memory_model("toy", labels=("1", "2", "cat"))
    async with serving(pool) as running:
        one = sampling_pb2.LabelRef(name=text)
        mixture = sampling_pb2.Mixture(components=[sampling_pb2.MixtureComponent(label=one, weight=1)])
        for condition in (sampling_pb2.Condition(label=one), sampling_pb2.Condition(mixture=mixture)):
            _, chunks = await running.sample(request(2, condition=condition))
            assert labels(chunks) == [index, index]


async def test_labels_belong_to_their_indices(running) -> None:
    given = sampling_pb2.Condition(labels=sampling_pb2.Labels(ids=[2, 0, 1]))
    _, chunks = await running.sample(request(3, start_index=5, condition=given))
    assert labels(chunks) == [2, 0, 1]


async def test_a_mixture_draws_only_its_classes(running) -> None:
    components = [
        sampling_pb2.MixtureComponent(label=sampling_pb2.LabelRef(name="zero"), weight=1),
        sampling_pb2.MixtureComponent(label=sampling_pb2.LabelRef(id=2), weight=3),
    ]
    mixture = sampling_pb2.Condition(mixture=sampling_pb2.Mixture(components=components))
    _, chunks = await running.sample(request(4000, condition=mixture))
    counts = np.bincount(labels(chunks), minlength=3)
    assert counts[1] == 0
    assert 2850 < counts[2] < 3150


async def test_no_condition_draws_the_prior(running) -> None:
    _, chunks = await running.sample(request(3000))
    assert np.bincount(labels(chunks)).min() > 900


async def test_truncation_changes_the_draw(running) -> None:
    _, plain = await running.sample(request())
    _, truncated = await running.sample(request(parameters=sampling_pb2.Parameters(truncation=0.5)))
    assert data(plain) != data(truncated)


async def test_different_parameters_never_share_a_call(running) -> None:
    running.pool.faults.delay_s = 0.01
    truncated = request(8, parameters=sampling_pb2.Parameters(truncation=1.0))
    await asyncio.gather(*(running.sample(each) for each in [request(8), truncated] * 10))
    assert {call.parameters.truncation for call in running.pool.calls} == {None, 1.0}


async def test_floats_are_in_the_models_own_range(running) -> None:
    header, chunks = await running.sample(request(encoding=model_pb2.ENCODING_FLOAT32))
    floats = np.frombuffer(data(chunks), "<f4")
    _, raw = await running.sample(request())
    assert header.sample_spec.value_range.max == 1
    assert np.rint(floats * 255).astype(np.uint8).tobytes() == data(raw)


async def test_png_holds_the_same_pixels(running) -> None:
    _, chunks = await running.sample(request(3, encoding=model_pb2.ENCODING_PNG))
    _, raw = await running.sample(request(3))
    first = Image.open(io.BytesIO(chunks[0].data[: chunks[0].lengths[0]]))
    assert np.asarray(first).tobytes() == data(raw)[:6]
    assert sum(chunks[0].lengths) == len(chunks[0].data)


async def test_a_failed_sample_is_listed_and_the_others_are_returned(running) -> None:
    running.pool.faults.bad_indices = frozenset({4})
    _, chunks = await running.sample(request())
    errors = [error for chunk in chunks for error in chunk.errors]
    assert [(error.index, error.status.code) for error in errors] == [(4, 13)]
    assert data(chunks)[24:30] == bytes(6)
    assert data(chunks)[30:] != bytes(30)


async def test_a_refused_item_fails_its_own_stream_alone(running) -> None:
    running.pool.faults.refused_indices = frozenset({1000})
    running.pool.faults.delay_s = 0.01
    others = [running.sample(request(5, start_index=i)) for i in range(20)]
    answers = await asyncio.gather(running.refused(request(5, start_index=998)), *others)
    assert answers[0].code().name == "INTERNAL"
    assert len(answers) == 21


async def test_chunks_stay_within_a_mebibyte(config) -> None:
    big = memory_model("big", labels=(), dims=(600, 700, 1))
    async with serving(MemoryPool(models=[big])) as running:
        _, chunks = await running.sample(request(5, model=model_pb2.ModelRef(name="big")))
        assert max(len(chunk.data) for chunk in chunks) <= 1 << 20
        assert sum(chunk.count for chunk in chunks) == 5
        _, parts = await running.sample(
            request(1, model=model_pb2.ModelRef(name="big"), encoding=model_pb2.ENCODING_FLOAT32)
        )
        assert [(part.part_offset, part.part_total) for part in parts] == [(0, 1680000), (1 << 20, 1680000)]


async def test_several_versions_are_served(config) -> None:
    models = [memory_model("toy", "1.9"), memory_model("toy", "1.10", dims=(1, 1, 1))]
    async with serving(MemoryPool(models=models)) as running:
        newest, _ = await running.sample(request())
        older, _ = await running.sample(request(model=model_pb2.ModelRef(name="toy", version="1.9")))
        pinned, _ = await running.sample(request(model=model_pb2.ModelRef(name="toy", digest=older.model.digest)))
        assert (newest.model.version, older.model.version, pinned.model.version) == ("1.10", "1.9", "1.9")


async def test_a_stream_uses_one_numerics(config) -> None:
    async with serving(MemoryPool(numerics=("avx2", "avx512"))) as running:
        header, _ = await running.sample(request(5000, numerics="avx512"))
        assert header.numerics == "avx512"
        assert {call.target.numerics for call in running.pool.calls} == {"avx512"}


@pytest.mark.parametrize("lost", [1, 3], ids=["once", "three-times"])
async def test_a_lost_worker_does_not_change_samples(running, lost: int) -> None:
    _, before = await running.sample(request(50))
    running.pool.faults.lose_calls = lost
    _, after = await running.sample(request(50))
    assert data(before) == data(after)
