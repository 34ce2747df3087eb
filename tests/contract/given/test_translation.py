"""TranslationService, and samples that are made of a given picture."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from fount.client import aio
from fount.v1 import model_pb2, sampling_pb2
from service.calls import RangeItem
from service.domain import ConditionKind, Operation
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import Running, serving_slowly
from tests.contract.given.streams import fields_of, ref, refused, requests, results, rows

TRANSLATES = frozenset({Operation.TRANSLATE})
BOTH = TRANSLATES | {Operation.SAMPLE}
IMAGES = np.array([[[[10], [20]]], [[[30], [40]]], [[[50], [60]]]], np.uint8)  # 3 of 1×2×1
LABEL = {"label": sampling_pb2.LabelRef(name="up")}


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    models = [
        memory_model("larger", labels=(), operations=TRANSLATES, input_dims=(1, 2, 1)),
        memory_model("ways", labels=("down", "up"), operations=TRANSLATES, input_dims=(1, 2, 1)),
        memory_model("steps", labels=(), operations=TRANSLATES, input_dims=(1, 2, 1), draw_steps=20),
        memory_model(
            "both", labels=(), operations=BOTH, input_dims=(2, 3, 1), conditions=frozenset({ConditionKind.MASK})
        ),
        memory_model("sampler", labels=()),
    ]
    async with serving_slowly(MemoryPool(models=models), max_batch_ms=2, bulk_batch_ms=4) as found:
        yield found


def negatives(images: np.ndarray, first_index: int = 0, label: int = 0) -> np.ndarray:
    """What the in-memory model returns: negatives, repeated to 2×3 pixels, with label and index at the ends."""
    flat = 255 - np.tile(images.reshape(len(images), -1), 3)
    flat[:, 0], flat[:, -1] = label, first_index + np.arange(len(images))
    return flat.reshape(-1, 2, 3, 1)


async def translated(running: Running, config: dict, *messages: sampling_pb2.InputRows) -> np.ndarray:
    return await results(running, "Translate", {"model": ref("larger")} | config, *messages)


async def test_it_makes_pictures_of_another_shape(running: Running) -> None:
    found = await translated(running, {"start_index": 7}, rows(IMAGES[:2]), rows(IMAGES[2:]))
    assert found.tolist() == negatives(IMAGES, 7).tolist()


async def test_a_label_is_the_direction(running: Running) -> None:
    config = {"model": ref("ways")}
    assert np.array_equal(await translated(running, config | LABEL, rows(IMAGES)), negatives(IMAGES, 0, 1))
    found = await translated(running, config, rows(IMAGES, labels=[0, 1, 0]))
    assert found[:, 0, 0, 0].tolist() == [0, 1, 0]


async def test_floats_are_in_the_models_own_range(running: Running) -> None:
    found = await translated(running, {"encoding": model_pb2.ENCODING_FLOAT32}, rows(IMAGES))
    assert np.allclose(found, negatives(IMAGES) / np.float32(255))


async def test_draws_of_many_steps_are_preempted(running: Running) -> None:
    found = await translated(running, {"model": ref("steps")}, rows(IMAGES))
    assert np.array_equal(found, negatives(IMAGES))
    assert {call.operation for call in running.pool.calls} == {Operation.TRANSLATE}
    resumed = [item for call in running.pool.calls for item in call.items if isinstance(item, RangeItem)]
    assert len(resumed) >= 3
    assert all(item.resume_from.state.shape[1] == 1 + 2 for item in resumed)


async def test_a_client_translates(running: Running) -> None:
    async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
        found = await client.translate("ways", IMAGES, label="up", start_index=3)
        assert np.array_equal(found, negatives(IMAGES, 3, 1))
        assert (await client.model("larger")).input_shape == (1, 2, 1)
        assert (await client.model("sampler")).input_shape == ()


async def test_samples_of_one_picture_are_translations_of_it_at_their_addresses(running: Running) -> None:
    async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
        found = await client.sample("steps", image=IMAGES[0], count=5, start_index=2)
        assert np.array_equal(found, negatives(IMAGES[[0] * 5], 2))
        found = await client.sample("ways", image=IMAGES, label="up")
        assert np.array_equal(found, negatives(IMAGES, 0, 1))


REFUSED = {
    "no direction": ({"model": ref("ways")}, rows(IMAGES), "rows.labels", "name config.label"),
    "unknown direction": (
        {"model": ref("ways"), "label": sampling_pb2.LabelRef(name="left")}, rows(IMAGES), "config.label.name", "down",
    ),
    "another shape": ({}, rows(IMAGES[:, :, :1]), "rows.data", "1×2×1"),
    "parameter": ({"parameters": sampling_pb2.Parameters(eta=1)}, rows(IMAGES), "config.parameters.eta", "takes steps"),
    "no rows": ({}, sampling_pb2.InputRows(), "rows.count", "at least 1"),
}  # fmt: skip


@pytest.mark.parametrize(("config", "message", "field", "words"), REFUSED.values(), ids=REFUSED)
async def test_it_refuses(running: Running, config: dict, message, field: str, words: str) -> None:
    config = {"model": ref("larger")} | config
    found = fields_of(await refused(running, "Translate", *requests("Translate", config, message)))
    assert field in found, found
    assert words in found[field]


async def test_a_model_that_does_not_translate_is_refused(running: Running) -> None:
    config = {"model": ref("sampler")}
    error = await refused(running, "Translate", *requests("Translate", config, rows(IMAGES)))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION


IMAGE = rows(IMAGES[:1])
CONDITIONS = {
    "no picture": ("larger", {}, "condition.image", "makes its samples of given pictures"),
    "picture of another shape": ("larger", {"image": rows(IMAGES[:1, :, :1])}, "condition.image.data", "1×2×1"),
    "a mask": ("larger", {"image": IMAGE, "mask": IMAGE}, "condition.mask", "takes no mask"),
    "a prefix": ("larger", {"image": IMAGE, "prefix": b"a"}, "condition.prefix", "takes no prefix"),
    "no direction": ("ways", {"image": IMAGE}, "condition.label", "ways has 0 ('down')"),
    "a picture that is not translated": ("sampler", {"image": IMAGE}, "condition.image", "takes no image"),
    "a mask without a picture": ("both", {"mask": rows(np.ones((1, 2, 3, 1), np.uint8))}, "condition.image", "missing"),
}


@pytest.mark.parametrize(("name", "condition", "field", "words"), CONDITIONS.values(), ids=CONDITIONS)
async def test_a_sample_is_refused(running: Running, name: str, condition: dict, field: str, words: str) -> None:
    request = sampling_pb2.SampleRequest(model=ref(name), count=1, condition=sampling_pb2.Condition(**condition))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in running.sampling.Sample(request):
            pass
    found = fields_of(error.value)
    assert field in found, found
    assert words in found[field]


async def test_a_model_that_does_both_samples_without_a_picture(running: Running) -> None:
    async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
        drawn = await client.sample("both", count=2, seed=1)
        image = np.full((2, 3, 1), 9, np.uint8)
        kept = await client.sample("both", count=2, seed=1, image=image, mask=np.eye(2, 3, dtype=bool))
        assert np.array_equal(kept, np.where(np.eye(2, 3, dtype=bool)[..., None], 9, drawn))
        assert np.array_equal((await client.sample("both", image=image))[0, 0, 1:, 0], [246, 246])
