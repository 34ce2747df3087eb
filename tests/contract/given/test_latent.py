"""LatentService: latents, samples and what lies between, in closed form by the in-memory models."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from fount.address import Addresses, Stream
from fount.v1 import latent_pb2 as latent
from fount.v1 import model_pb2, sampling_pb2
from service.calls import GivenItem
from service.domain import Operation, ServedModel
from service.workers.memory_models import memory_given
from tests.contract.gateways import Running
from tests.contract.given.streams import answer, method, pixels, ref, requests, results, rows

SAMPLED = latent.LATENTS_SAMPLED
FLOAT32 = model_pb2.ENCODING_FLOAT32


def latents(images: np.ndarray) -> np.ndarray:
    """What the in-memory encoder returns: the first two pixels, in [0, 1]."""
    return (images.reshape(len(images), -1)[:, :2] / np.float32(255)).astype(np.float32)


def noise(indices, seed: int = 7) -> np.ndarray:
    indices = np.asarray(indices, np.uint64)
    addresses = Addresses(seeds=np.full(len(indices), seed, np.uint64), indices=indices)
    return addresses.normals(Stream.LATENT, 2).astype(np.float64)


def decoded(z: np.ndarray) -> np.ndarray:
    """What the in-memory decoder returns, as bytes."""
    images = np.zeros((len(z), 6), np.float32)
    images[:, :2] = z.clip(0, 1)
    return np.rint(images * 255).astype(np.uint8).reshape(-1, 2, 3, 1)


async def test_it_encodes_to_means(running: Running) -> None:
    images = pixels(5)
    header, chunks, found = await answer(running, "Encode", {}, rows(images))
    assert found.tobytes() == latents(images).tobytes()
    assert list(header.sample_spec.dims) == [2]
    assert header.sample_spec.modality == model_pb2.SampleSpec.MODALITY_VECTOR
    assert [(chunk.start_index, chunk.count) for chunk in chunks] == [(0, 5)]


async def test_it_returns_the_spread_after_the_mean(running: Running) -> None:
    found = await results(running, "Encode", {"spread": True}, rows(pixels(3)))
    assert found.shape == (3, 2, 2)
    assert (found[:, 1] == 0.25).all()


async def test_it_draws_latents_by_address(running: Running) -> None:
    images = pixels(4)
    found = await results(running, "Encode", {"latents": SAMPLED, "seed": 7, "start_index": 10}, rows(images))
    expected = (latents(images).astype(np.float64) + 0.25 * noise([10, 11, 12, 13])).astype(np.float32)
    assert found.tobytes() == expected.tobytes()


async def test_it_decodes_latents(running: Running) -> None:
    z = np.array([[0.0, 1.0], [0.5, 0.2]], np.float32)
    assert (await results(running, "Decode", {}, rows(z))).tobytes() == decoded(z).tobytes()


async def test_encode_then_decode_is_reconstruct(running: Running) -> None:
    images = pixels(300)
    config = {"latents": SAMPLED, "seed": 3}
    z = await results(running, "Encode", config, rows(images))
    ours = await results(running, "Decode", {}, rows(z))
    assert ours.tobytes() == (await results(running, "Reconstruct", config, rows(images))).tobytes()


async def test_a_label_of_the_config_is_that_of_every_row(running: Running) -> None:
    images = pixels(3)
    config = {"model": ref("classes"), "label": sampling_pb2.LabelRef(name="two")}
    _, chunks, found = await answer(running, "Reconstruct", config, rows(images))
    assert list(chunks[0].labels) == [2, 2, 2]
    assert found[:, 1, 2, 0].tolist() == [2, 2, 2]


async def test_rows_name_their_own_labels(running: Running) -> None:
    found = await results(running, "Reconstruct", {"model": ref("classes")}, rows(pixels(3), labels=[2, 0, 1]))
    assert found[:, 1, 2, 0].tolist() == [2, 0, 1]


async def test_ends_of_a_line_are_the_rows_themselves(running: Running) -> None:
    images = pixels(4)
    found = await results(running, "Interpolate", {"points": 5}, rows(images))
    assert found.shape == (10, 2, 3, 1)
    assert found[[0, 4, 5, 9]].tobytes() == images.tobytes()


async def test_points_of_a_line_are_decoded_between_the_latents(running: Running) -> None:
    images = pixels(2)
    found = await results(running, "Interpolate", {"points": 3}, rows(images))
    middle = latents(images).astype(np.float64).mean(axis=0, keepdims=True).astype(np.float32)
    assert found[1:2].tobytes() == decoded(middle).tobytes()


async def test_a_spherical_line_keeps_the_norm(running: Running) -> None:
    images = np.zeros((2, 2, 3, 1), np.uint8)
    images[0, 0, 0], images[1, 0, 1] = 255, 255  # latents (1, 0) and (0, 1)
    config = {"points": 3, "path": latent.InterpolateConfig.PATH_SPHERICAL}
    found = await results(running, "Interpolate", config, rows(images))
    assert found[1].reshape(-1)[:2].tolist() == [180, 180]  # 255 / √2; a straight line gives 128


async def test_a_pair_may_come_in_two_messages(running: Running) -> None:
    images = pixels(4)
    whole = await results(running, "Interpolate", {"points": 4}, rows(images))
    parts = await results(running, "Interpolate", {"points": 4}, *(rows(images[k : k + 1]) for k in range(4)))
    odd = await results(running, "Interpolate", {"points": 4}, rows(images[:3]), rows(images[3:]))
    assert whole.tobytes() == parts.tobytes() == odd.tobytes()


async def test_floats_of_byte_rows_are_the_ends_of_a_line_of_floats(running: Running) -> None:
    images = pixels(2)
    found = await results(running, "Interpolate", {"points": 2, "encoding": FLOAT32}, rows(images))
    assert found.tobytes() == (images / np.float32(255)).astype(np.float32).tobytes()


async def test_variants_are_drawn_around_the_latent_by_address(running: Running) -> None:
    images = pixels(2)
    config = {"variants": 3, "seed": 7, "start_index": 5, "jitter": latent.Jitter(scale=0.1)}
    header, chunks, found = await answer(running, "Vary", config, rows(images))
    means = latents(images).repeat(3, axis=0).astype(np.float64)
    expected = decoded((means + 0.1 * noise(range(15, 21))).astype(np.float32))
    assert found.tobytes() == expected.tobytes()
    assert (chunks[0].start_index, header.seed) == (15, 7)


async def test_variants_walk_along_a_direction(running: Running) -> None:
    walk = latent.Walk(direction="tall", from_amount=0, to_amount=1)
    images = np.zeros((1, 2, 3, 1), np.uint8)
    found = await results(running, "Vary", {"variants": 3, "walk": walk}, rows(images))
    assert found[:, 0, 0, 0].tolist() == [0, 128, 255]


async def test_points_are_worked_on_as_floats(running: Running) -> None:
    points = np.array([[0.25, 0.75], [1.0, 0.0]], np.float32)
    header, _, found = await answer(running, "Reconstruct", {"model": ref("points")}, rows(points))
    assert header.sample_spec.encoding == FLOAT32
    assert found[:, 0].tolist() == [0.25, 1.0]


async def test_png_files_hold_the_pixels(running: Running) -> None:
    responses = [
        each
        async for each in method(running, "Decode")(
            iter(requests("Decode", {"encoding": model_pb2.ENCODING_PNG}, rows(np.ones((2, 2), np.float32)))),
            timeout=20,
        )
    ]
    assert responses[1].chunk.data.startswith(b"\x89PNG")
    assert len(responses[1].chunk.lengths) == 2


@pytest.mark.parametrize(
    ("rpc", "config", "factor"),
    [
        ("Encode", {"latents": SAMPLED, "seed": 7}, 1),
        ("Reconstruct", {"latents": SAMPLED, "seed": 7}, 1),
        ("Vary", {"variants": 5, "seed": 7}, 5),
        ("Interpolate", {"points": 5}, 5),
    ],
)
async def test_parts_in_company_are_the_bytes_of_the_whole(running: Running, rpc: str, config, factor: int) -> None:
    images = pixels(240)
    whole = await results(running, rpc, config, rows(images))
    step = 2 if rpc == "Interpolate" else 1  # rows of a result

    async def part(first: int, last: int) -> bytes:
        own = config | {"start_index": first // step}
        return (await results(running, rpc, own, rows(images[first:last]))).tobytes()

    cuts = [0, 2, 4, 90, 150, 240]
    others = [results(running, "Reconstruct", {}, rows(pixels(50, seed=k))) for k in range(5)]
    parts, *_ = await asyncio.gather(asyncio.gather(*map(part, cuts, cuts[1:])), *others)
    assert b"".join(parts) == whole.tobytes()
    assert len(whole) == 240 // step * factor


async def test_a_failed_row_fails_alone(running: Running) -> None:
    running.pool.faults.bad_indices = frozenset({1})
    images = pixels(3)
    _, (chunk,), found = await answer(running, "Reconstruct", {}, rows(images))
    assert [each.index for each in chunk.errors] == [1]
    assert not found[1].any()
    assert found[2].tobytes() == decoded(latents(images)[2:]).tobytes()


async def test_a_row_that_cannot_be_encoded_has_no_bytes(running: Running, monkeypatch) -> None:
    whole = running.pool._bad_rows
    monkeypatch.setattr(running.pool, "_bad_rows", lambda item: [1] if item.rows.ndim == 4 else whole(item))
    _, (chunk,), found = await answer(running, "Reconstruct", {}, rows(pixels(3)))
    assert [each.index for each in chunk.errors] == [1]
    assert not found[1].any()


async def test_a_failed_row_fails_all_its_variants(running: Running) -> None:
    running.pool.faults.bad_indices = frozenset({1})
    _, (chunk,), _ = await answer(running, "Vary", {"variants": 2}, rows(pixels(2)))
    assert [each.index for each in chunk.errors] == [1, 2, 3]


@pytest.mark.parametrize(
    ("rpc", "config", "failed"),
    [
        ("Encode", {"latents": SAMPLED, "seed": 7}, [1]),
        ("Reconstruct", {"latents": SAMPLED, "seed": 7}, [1]),
        ("Vary", {"variants": 2, "walk": latent.Walk(direction="huge", from_amount=0, to_amount=1)}, [3]),
    ],
)
async def test_a_latent_beyond_floats_fails_alone(
    running: Running, monkeypatch: pytest.MonkeyPatch, rpc: str, config, failed: list[int]
) -> None:
    def spread_widely(model: ServedModel, operation: Operation, item: GivenItem):
        found = memory_given(model, operation, item)
        if operation is Operation.DECODE and not np.isfinite(item.rows).all():
            raise AssertionError("workers refuse all rows of an item with an infinite one")
        if operation is Operation.ENCODE:
            found[np.flatnonzero(item.indices == 1)] = 3e38  # its mean and its deviation
        return found

    monkeypatch.setattr("service.workers.memory.memory_given", spread_widely)
    images = pixels(3)
    _, (chunk,), found = await answer(running, rpc, config, rows(images))
    assert [each.index for each in chunk.errors] == failed
    assert not found[failed].any()
    assert found[-1].any()
