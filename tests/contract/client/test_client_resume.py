"""Streams that break: resumed where they broke, or refused."""

import numpy as np
import pytest

from fount.errors import BadReply
from tests.contract.fake_gateway import DIGEST, NUMERICS, Behaviour, FakeGateway, unavailable


def requested(gateway):
    return [(request.start_index, request.count) for request in gateway.requests]


def test_it_resumes_a_broken_stream(client_of, expected):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=2)])
    with client_of(gateway) as client:
        samples = client.sample("digits-cvae", count=15, start_index=10, seed=3)
    assert np.array_equal(samples, expected(3, 10, 15))
    assert requested(gateway) == [(10, 15), (18, 7)]


def test_it_pins_what_the_server_chose_when_it_resumes(client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1)])
    with client_of(gateway) as client:
        client.sample("digits-cvae", count=8)
    second = gateway.requests[1]
    assert (second.seed, second.numerics, second.model.digest) == (4711, NUMERICS, DIGEST)


def test_it_resumes_at_the_sample_within_which_a_stream_broke(client_of, expected):
    gateway = FakeGateway(chunk_count=1, part_bytes=5, attempts=[Behaviour(status=unavailable(), break_after=6)])
    with client_of(gateway) as client:
        assert np.array_equal(client.sample("digits-cvae", count=3, seed=2), expected(2, 0, 3))
    assert requested(gateway) == [(0, 3), (1, 2)]


def test_it_counts_attempts_from_0_after_progress(client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1)] * 8)
    with client_of(gateway) as client:
        assert len(client.sample("digits-cvae", count=36)) == 36


def test_it_is_complete_when_a_stream_breaks_after_the_last_sample(client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=2)])
    gateway.chunk_count = 4
    with client_of(gateway) as client:
        assert len(client.sample("digits-cvae", count=8)) == 8
    assert requested(gateway) == [(0, 8)]


def test_it_resumes_labels(client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1)])
    labels = [9, 8, 7, 6, 5, 4]
    with client_of(gateway) as client:
        assert client.sample("digits-cvae", labels=labels).labels.tolist() == labels


@pytest.mark.parametrize("count", [1, 6], ids=["one", "each"])
def test_it_resumes_latents(client_of, count):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1)])
    latents = np.arange(2 * count, dtype="<f4").reshape(count, 2)
    with client_of(gateway) as client:
        client.sample("digits-cvae", count=6, latent=latents)
    first, second = (each.condition.latent for each in gateway.requests)
    done = gateway.requests[1].start_index if count > 1 else 0
    assert (first.count, first.data) == (count, latents.tobytes())
    assert (second.count, second.data) == (count - done, latents[done:].tobytes())


@pytest.mark.parametrize(
    "changed", [Behaviour(digest="sha256:" + "b" * 64), Behaviour(numerics="gpu")], ids=["digest", "numerics"]
)
def test_it_refuses_a_server_that_changed_meanwhile(client_of, changed):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1), changed])
    with client_of(gateway) as client, pytest.raises(BadReply, match="was pinned"):
        client.sample("digits-cvae", count=8)


def test_it_refuses_a_stream_that_ends_early(client_of):
    gateway = FakeGateway(attempts=[Behaviour(stop_after=1)])
    with client_of(gateway) as client, pytest.raises(BadReply, match="ended before sample 4; 4 are missing"):
        client.sample("digits-cvae", count=8)
