"""A stream that breaks, and goes on where it broke or not at all."""

from contextlib import contextmanager

import numpy as np
import pytest

from fount import Client
from fount.errors import BadReply
from fount.retry import RetryPolicy
from tests.contract.fake_gateway import DIGEST, NUMERICS, Behaviour, FakeGateway, pixels, serving, unavailable

QUICK = RetryPolicy(first_attempts=3, attempts=3, base_s=0.001)


@contextmanager
def client_of(gateway, timeout_s=10.0):
    with serving(gateway) as server, Client(server, timeout_s=timeout_s, retry=QUICK) as client:
        yield client


def expected(seed, start, count):
    return np.stack([pixels(seed, index) for index in range(start, start + count)])


def asked(gateway):
    return [(request.start_index, request.count) for request in gateway.requests]


def test_a_broken_stream_is_resumed_where_it_broke():
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=2)])
    with client_of(gateway) as client:
        samples = client.sample("digits-cvae", count=15, start_index=10, seed=3)
    assert np.array_equal(samples, expected(3, 10, 15))
    assert asked(gateway) == [(10, 15), (18, 7)]


def test_a_resumed_request_pins_what_the_server_chose():
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1)])
    with client_of(gateway) as client:
        client.sample("digits-cvae", count=8)
    second = gateway.requests[1]
    assert (second.seed, second.numerics, second.model.digest) == (4711, NUMERICS, DIGEST)


def test_a_stream_that_breaks_within_a_sample_is_resumed_at_that_sample():
    gateway = FakeGateway(chunk_count=1, part_bytes=5, attempts=[Behaviour(status=unavailable(), break_after=6)])
    with client_of(gateway) as client:
        assert np.array_equal(client.sample("digits-cvae", count=3, seed=2), expected(2, 0, 3))
    assert asked(gateway) == [(0, 3), (1, 2)]


def test_a_stream_may_break_more_often_than_a_server_may_be_absent():
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1)] * 8)
    with client_of(gateway) as client:
        assert len(client.sample("digits-cvae", count=36)) == 36


def test_a_break_after_the_last_sample_loses_nothing():
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=2)])
    gateway.chunk_count = 4
    with client_of(gateway) as client:
        assert len(client.sample("digits-cvae", count=8)) == 8
    assert asked(gateway) == [(0, 8)]


def test_labels_go_on_where_a_stream_broke():
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1)])
    labels = [9, 8, 7, 6, 5, 4]
    with client_of(gateway) as client:
        assert client.sample("digits-cvae", labels=labels).labels.tolist() == labels


@pytest.mark.parametrize(
    "changed", [Behaviour(digest="sha256:" + "b" * 64), Behaviour(numerics="gpu")], ids=["digest", "numerics"]
)
def test_a_server_that_changed_meanwhile_is_refused(changed):
    gateway = FakeGateway(attempts=[Behaviour(status=unavailable(), break_after=1), changed])
    with client_of(gateway) as client, pytest.raises(BadReply, match="was pinned"):
        client.sample("digits-cvae", count=8)


def test_a_stream_that_ends_early_is_refused():
    gateway = FakeGateway(attempts=[Behaviour(stop_after=1)])
    with client_of(gateway) as client, pytest.raises(BadReply, match="ended before sample 4; 4 are missing"):
        client.sample("digits-cvae", count=8)
