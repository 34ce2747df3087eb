"""SamplingService with latents in the condition: samples are decoded from them, each row at its own index."""

from __future__ import annotations

import math

import grpc
import numpy as np
import pytest

from fount.v1 import model_pb2, sampling_pb2
from tests.contract.gateways import Running, data, fields, labels
from tests.contract.given.streams import pixels, ref, results, rows

LATENTS = np.random.default_rng(0).uniform(0, 1, (5, 2)).astype(np.float32)
REF = sampling_pb2.LabelRef
ONE = rows(LATENTS[:1])


def given(z: np.ndarray, model: str = "plain", count: int | None = None, **condition) -> sampling_pb2.SampleRequest:
    return sampling_pb2.SampleRequest(
        model=ref(model),
        count=len(z) if count is None else count,
        seed=7,
        condition=sampling_pb2.Condition(latent=rows(z), **condition),
    )


async def test_samples_are_the_decoded_latents(running: Running) -> None:
    header, chunks = await running.sample(given(LATENTS))
    assert data(chunks) == (await results(running, "Decode", {}, rows(LATENTS))).tobytes()
    assert (header.seed, list(header.sample_spec.dims)) == (7, [2, 3, 1])


async def test_one_latent_serves_all_samples(running: Running) -> None:
    condition = {"labels": sampling_pb2.Labels(ids=[2, 0, 1])}
    _, chunks = await running.sample(given(LATENTS[:1], "classes", 3, **condition))
    decoded = await results(running, "Decode", {"model": ref("classes")}, rows(LATENTS[[0, 0, 0]], labels=[2, 0, 1]))
    assert (data(chunks), labels(chunks)) == (decoded.tobytes(), [2, 0, 1])


async def test_a_label_belongs_to_every_latent(running: Running) -> None:
    _, chunks = await running.sample(given(LATENTS, "classes", label=REF(name="two")))
    assert labels(chunks) == [2] * 5


async def test_a_broken_stream_resumes_with_the_latents_that_remain(running: Running) -> None:
    whole = given(LATENTS.repeat(40, axis=0), "classes")  # labels of the prior, drawn by address
    _, chunks = await running.sample(whole)
    rest = given(LATENTS.repeat(40, axis=0)[70:], "classes")
    rest.start_index = 70
    _, resumed = await running.sample(rest)
    assert data(resumed) == data(chunks)[70 * 6 :]
    assert labels(resumed) == labels(chunks)[70:]


async def test_a_few_samples_come_in_one_message(running: Running) -> None:
    once = await running.sampling.SampleOnce(sampling_pb2.SampleOnceRequest(request=given(LATENTS)))
    _, chunks = await running.sample(given(LATENTS))
    assert once.chunk == chunks[0]


async def test_latents_of_vectors_become_floats(running: Running) -> None:
    _, chunks = await running.sample(given(LATENTS, "points"))
    assert len(data(chunks)) == 5 * 2 * 4


async def test_a_failed_sample_fails_alone(running: Running) -> None:
    running.pool.faults.bad_indices = frozenset({1})
    _, (chunk,) = await running.sample(given(LATENTS))
    assert [each.index for each in chunk.errors] == [1]


INVALID = {
    "count": (given(LATENTS, count=3), ["condition.latent.count"]),
    "no latents": (given(LATENTS[:0], count=1), ["condition.latent.count"]),
    "shape": (given(np.zeros((2, 3), np.float32)), ["condition.latent.data"]),
    "bytes": (given(pixels(2)), ["condition.latent.data"]),
    "nan": (given(np.full((2, 2), math.nan, np.float32)), ["condition.latent.data"]),
    "parameters": (
        sampling_pb2.SampleRequest(
            model=ref(),
            count=1,
            condition=sampling_pb2.Condition(latent=ONE),
            parameters=sampling_pb2.Parameters(truncation=1),
        ),
        ["parameters"],
    ),
    "label of an unconditional model": (given(LATENTS, label=REF(id=1)), ["condition.label"]),
    "labels of the rows": (
        sampling_pb2.SampleRequest(
            model=ref("classes"),
            count=2,
            condition=sampling_pb2.Condition(latent=rows(LATENTS[:2], labels=[0, 1])),
        ),
        ["condition.latent.labels"],
    ),
    "what no model takes": (
        sampling_pb2.SampleRequest(
            model=ref(), count=1, condition=sampling_pb2.Condition(prefix=b"a", latent=ONE, image=ONE, mask=ONE)
        ),
        ["condition.prefix", "condition.image", "condition.mask"],
    ),
    "image alone": (
        sampling_pb2.SampleRequest(model=ref("classes"), count=1, condition=sampling_pb2.Condition(image=ONE)),
        ["condition.image"],
    ),
}


@pytest.mark.parametrize("case", INVALID)
async def test_wrong_conditions_are_all_named(running: Running, case: str) -> None:
    bad, names = INVALID[case]
    error = await running.refused(bad)
    assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, names)


async def test_an_unknown_label_is_not_found(running: Running) -> None:
    error = await running.refused(given(LATENTS, "classes", label=REF(id=9)))
    assert (error.code(), fields(error)) == (grpc.StatusCode.NOT_FOUND, ["condition.label.id"])


async def test_too_many_latents_are_refused(running: Running) -> None:
    error = await running.refused(given(np.zeros((1 << 18, 2), np.float32)))
    assert "must hold at most 1048576 bytes" in error.details()


async def test_a_model_without_a_decoder_is_a_failed_precondition(running: Running) -> None:
    error = await running.refused(given(LATENTS, "sampler"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "lacks the operation DECODE" in error.details()


async def test_models_say_how_much_may_be_given(running: Running) -> None:
    listed = (await running.models.ListModels(model_pb2.ListModelsRequest())).models
    assert {each.ref.name: each.limits.max_given_bytes for each in listed} == {
        "classes": 1 << 20, "plain": 1 << 20, "points": 1 << 20, "sampler": 0, "steps": 0, "verse": 0,
    }  # fmt: skip
