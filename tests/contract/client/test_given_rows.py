"""Latents, lines, variants, scores and classes by both clients, of the gateway over in-memory models."""

from __future__ import annotations

import asyncio
import pickle

import numpy as np
import pytest

from fount import Client, aio
from fount.errors import FailedPrecondition, InvalidRequest, NotFound, SampleFailed
from fount.v1 import latent_pb2
from tests.contract.gateways import serving
from tests.contract.given.streams import pixels, pool_of_models, results, rows


@pytest.fixture
async def running():
    async with serving(pool_of_models()) as started:
        yield started


@pytest.fixture(params=["sync", "aio"])
def call(request, running):
    """Call a method of a client."""
    server = f"127.0.0.1:{running.gateway.port}"

    async def call_aio(method, *args, **query):
        async with aio.Client(server, timeout_s=20) as client:
            return await getattr(client, method)(*args, **query)

    def call_sync(method, *args, **query):
        with Client(server, timeout_s=20) as client:
            return getattr(client, method)(*args, **query)

    async def in_thread(method, *args, **query):
        return await asyncio.to_thread(call_sync, method, *args, **query)

    return call_aio if request.param == "aio" else in_thread


def latents(images):
    """The first two pixels, in [0, 1]."""
    return (images.reshape(len(images), -1)[:, :2] / np.float32(255)).astype(np.float32)


def fields(error):
    return dict(error.value.fields)


async def test_it_encodes(call):
    images = pixels(5)
    found = await call("encode", "plain", images, start_index=3)
    assert (found.dtype, found.tobytes()) == (np.float32, latents(images).tobytes())
    assert (found.numerics, found.model.name, found.indices.tolist()) == ("memory", "plain", [3, 4, 5, 6, 7])


async def test_it_encodes_with_the_spread(call):
    found = await call("encode", "plain", pixels(3), spread=True)
    assert found.shape == (3, 2, 2)
    assert (found[:, 1] == 0.25).all()


async def test_it_draws_latents_by_seed(call, running):
    config = {"latents": latent_pb2.LATENTS_SAMPLED, "seed": 7}
    expected = await results(running, "Encode", config, rows(pixels(4)))
    found = await call("encode", "plain", pixels(4), sampled=True, seed=7)
    assert (found.tobytes(), found.seed) == (expected.tobytes(), 7)


async def test_it_decodes_what_it_encoded_to_its_reconstruction(call):
    z = await call("encode", "plain", pixels(4))
    found = await call("decode", "plain", z)
    assert (found.shape, found.dtype) == ((4, 2, 3, 1), np.uint8)
    assert found.tobytes() == (await call("reconstruct", "plain", pixels(4))).tobytes()


async def test_it_decodes_to_floats(call):
    found = await call("decode", "plain", [[0.25, 0.5]], encoding="float32")
    assert (found.dtype, found.reshape(-1).tolist()) == (np.float32, [0.25, 0.5, 0, 0, 0, 0])


async def test_it_samples_given_latents(call):
    z = np.random.default_rng(3).random((100, 2))
    found = await call("sample", "plain", latent=z)
    assert found.tobytes() == (await call("decode", "plain", z)).tobytes()
    repeated = await call("sample", "classes", latent=z[0], count=70, label="two")
    assert (len(repeated), set(repeated.labels.tolist()), len(np.unique(repeated, axis=0))) == (70, {2}, 1)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"latent": np.zeros((3, 2)), "count": 4}, "holds 3 latents for 4 samples; give one a sample"),
        ({"latent": np.zeros((3, 2)), "labels": [1]}, "holds 3 latents for 1 samples"),
        ({"latent": np.zeros((1, 2), int)}, "give (rows, latent_dim) floats"),
        ({"latent": np.zeros((200_000, 2))}, "at most 131072 of 2 numbers; use decode"),
    ],
    ids=["count", "labels", "integers", "too many"],
)
def test_it_names_wrong_latents_of_samples(query, text):
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest) as error:
        client.sample("plain", **query)
    assert text in fields(error)["latent"]


async def test_it_reconstructs_drawn_latents(call, running):
    config = {"latents": latent_pb2.LATENTS_SAMPLED, "seed": 7}
    expected = await results(running, "Reconstruct", config, rows(pixels(4)))
    assert (await call("reconstruct", "plain", pixels(4), sampled=True, seed=7)).tobytes() == expected.tobytes()


async def test_ends_of_lines_are_the_rows(call):
    first, second = pixels(3, seed=1), pixels(3, seed=2)
    found = await call("interpolate", "plain", first, second, points=4, start_index=2)
    assert found.shape == (3, 4, 2, 3, 1)
    assert (found[:, 0].tobytes(), found[:, -1].tobytes()) == (first.tobytes(), second.tobytes())
    assert found.indices.tolist() == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]


async def test_a_spherical_line_keeps_the_norm(call):
    ends = np.zeros((2, 2, 3), np.uint8)
    ends[0, 0, 0], ends[1, 0, 1] = 255, 255  # latents (1, 0) and (0, 1)
    found = await call("interpolate", "plain", ends[:1, ..., None], ends[1:, ..., None], points=3, path="spherical")
    assert found[0, 1].reshape(-1)[:2].tolist() == [180, 180]  # 255 / √2


async def test_pairs_have_one_label_each(call):
    first, second = pixels(2, seed=1), pixels(2, seed=2)
    found = await call("interpolate", "classes", first, second, points=3, labels=[2, 1])
    assert found.labels.tolist() == [[2, 2, 2], [1, 1, 1]]
    assert found[:, 1, -1, -1, 0].tolist() == [2, 1]


async def test_it_draws_variants(call, running):
    config = {"variants": 3, "seed": 7, "jitter": latent_pb2.Jitter(scale=0.1)}
    expected = await results(running, "Vary", config, rows(pixels(2)))
    found = await call("vary", "plain", pixels(2), variants=3, scale=0.1, seed=7)
    assert (found.shape, found.tobytes()) == ((2, 3, 2, 3, 1), expected.tobytes())


async def test_it_walks_along_a_direction(call):
    picture = np.zeros((2, 3), np.uint8)
    found = await call("vary", "plain", picture, variants=3, direction="tall", from_amount=0, to_amount=1)
    assert found[0, :, 0, 0, 0].tolist() == [0, 128, 255]


async def test_it_scores_in_named_columns(call):
    images = pixels(3)
    found = await call("score", "plain", images)
    total = (images.reshape(3, -1) / 255).sum(axis=1)
    assert np.allclose(found["b"], 1 - total, atol=1e-5)
    assert np.allclose(found[1:]["a"], -total[1:], atol=1e-5)
    assert [(each.name, each.kind) for each in found.columns] == [("a", "exact"), ("b", "exact")]
    with pytest.raises(KeyError, match='no score "elbo"; there are a, b'):
        found["elbo"]


@pytest.mark.parametrize("chosen", [{"label": "two"}, {"label": 2}, {"labels": [2, 2]}], ids=str)
async def test_a_label_conditions_scores(call, chosen):
    zeros = np.zeros((2, 2, 3, 1), np.uint8)
    assert (await call("score", "classes", zeros, **chosen)).tolist() == [[200, 201], [200, 201]]


async def test_it_classifies(call):
    images = np.zeros((1, 2, 3, 1), np.uint8)  # p(y|x) = 0.9, 0.05, 0.05 under equal priors
    found = await call("classify", "classes", images)
    assert (found.classes, found.shape) == (("zero", "one", "two"), (1, 3))
    assert np.allclose(found, [[0.9, 0.05, 0.05]])
    found = await call("classify", "classes", images, prior={"zero": 1, 1: 3})
    assert np.allclose(found, [[0.9 / 1.05, 0.15 / 1.05, 0]], atol=1e-6)


async def test_it_takes_and_returns_vectors(call):
    points = np.array([[0.25, 0.75], [1.0, 0.0]])
    assert (await call("reconstruct", "points", points)).shape == (2, 2)
    assert (await call("vary", "points", points[0], variants=4, scale=0)).shape == (1, 4, 2)


async def test_rows_that_failed_are_named(call, running):
    running.pool.faults.bad_indices = frozenset({1})
    with pytest.raises(SampleFailed) as error:
        await call("encode", "plain", pixels(3))
    assert error.value.indices == [1]


async def test_scores_are_pickled_with_their_columns(call):
    found = await call("score", "classes", pixels(2), label=1)
    again = pickle.loads(pickle.dumps(found))
    assert (again.columns, again.provenance, again.labels.tolist()) == (found.columns, found.provenance, [1, 1])
    assert again["a"].tolist() == found["a"].tolist()


async def test_a_model_card_tells_what_latents_and_scores_it_has(call):
    info = await call("model", "plain")
    assert (info.latent_dim, info.latent_spread, info.draw_steps, info.modality) == (2, 1.0, 1, "image")
    assert ("tall", (1.0, 0.0)) in [(each.name, each.vector) for each in info.directions]
    assert [each.name for each in info.score_columns] == ["a", "b"]


async def test_the_gateway_names_what_depends_on_the_model(call):
    with pytest.raises(InvalidRequest) as error:
        await call("encode", "plain", np.zeros((2, 5, 5, 1), np.uint8), label=1)
    assert list(fields(error)) == ["config.label"]
    with pytest.raises(InvalidRequest) as error:
        await call("encode", "plain", np.zeros((2, 5, 5, 1), np.uint8))
    assert "2×3×1" in fields(error)["rows.data"]
    with pytest.raises(NotFound, match="no direction 'wide'"):
        await call("vary", "plain", pixels(1), direction="wide")
    with pytest.raises(FailedPrecondition):
        await call("encode", "sampler", pixels(1))


@pytest.mark.parametrize(
    ("method", "query", "wrong"),
    [
        ("encode", {"sampled": True, "spread": True, "start_index": -1}, {"spread", "start_index"}),
        ("encode", {"label": 1, "labels": [1, 1, 1]}, {"labels"}),
        ("encode", {"start_index": 2**64 - 1}, {"start_index"}),
        ("reconstruct", {"labels": [1]}, {"labels"}),
        ("reconstruct", {"encoding": "png", "priority": "high"}, {"encoding", "priority"}),
        ("vary", {"variants": 1001, "scale": float("nan")}, {"variants", "scale"}),
        ("vary", {"direction": "tall", "scale": 1, "seed": 1}, {"scale", "seed"}),
        ("vary", {"from_amount": 1, "to_amount": 101}, {"from_amount", "to_amount"}),
        ("score", {"importance_samples": -1, "seed": 2**64}, {"importance_samples", "seed"}),
        ("classify", {"prior": {}}, {"prior"}),
    ],
)
def test_it_names_every_wrong_argument(method, query, wrong):
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest) as error:
        getattr(client, method)("plain", pixels(3), **query)
    assert set(fields(error)) == wrong


def test_it_names_wrong_pairs():
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest) as error:
        client.interpolate("plain", pixels(3), pixels(2), points=1, path="straight")
    assert set(fields(error)) == {"second", "points", "path"}


@pytest.mark.parametrize(
    "given", [np.zeros((2, 3), int), np.zeros((0, 2, 3, 1), np.uint8), np.zeros(4, np.uint8), np.zeros((1,) * 5)]
)
def test_it_names_rows_of_a_wrong_kind(given):
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest) as error:
        client.score("plain", given)
    assert list(fields(error)) == ["rows"]


def test_it_names_latents_of_a_wrong_kind():
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="give \\(rows, latent_dim\\) floats"):
        client.decode("plain", np.zeros((3, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"sampled": 1}, "sampled must be True or False"),
        ({"points": 3}, "encode\\(\\) got an unexpected argument 'points'"),
    ],
)
def test_it_refuses_wrong_types(query, text):
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match=text):
        client.encode("plain", pixels(1), **query)
