"""Streams of given rows that break: sent again from the first result that is missing, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from fount.errors import BadReply, InternalError, ServerUnavailable
from fount.sampling.rows import messages_of
from tests.contract.fake_gateway import DIGEST, NUMERICS
from tests.contract.fake_latent import SEED, FakeLatent

ROWS = np.arange(20, dtype=np.uint8).reshape(5, 2, 2, 1) * 10
VARIED = ROWS[:, None] + np.arange(3, dtype=np.uint8)[:, None, None, None]


def sent(fake: FakeLatent) -> list[tuple[int, int]]:
    """Start index and number of rows of each attempt."""
    return [(config.start_index, sum(each.count for each in messages)) for config, messages in fake.attempts]


def test_it_resumes_within_the_variants_of_a_row(client_of):
    fake = FakeLatent(breaks=[2])  # after variant 0 of row 1
    with client_of(fake) as client:
        found = client.vary("toy", ROWS, variants=3, start_index=7)
    assert found.tobytes() == VARIED.tobytes()
    assert found.indices.tolist() == np.arange(21, 36).reshape(5, 3).tolist()
    assert sent(fake) == [(7, 5), (8, 4)]


def test_it_drops_whole_chunks_that_come_again(client_of):
    fake = FakeLatent(breaks=[5], chunk_count=1)
    with client_of(fake) as client:
        assert client.vary("toy", ROWS, variants=3).tobytes() == VARIED.tobytes()
    assert sent(fake) == [(0, 5), (1, 4)]


async def test_it_resumes_within_an_event_loop(aio_client_of):
    fake = FakeLatent(breaks=[2, 3])
    async with aio_client_of(fake) as client:
        found = await client.vary("toy", ROWS, variants=3)
    assert found.tobytes() == VARIED.tobytes()
    assert sent(fake) == [(0, 5), (1, 4), (3, 2)]


def test_it_pins_what_the_server_chose(client_of):
    fake = FakeLatent(breaks=[1])
    with client_of(fake) as client:
        assert client.vary("toy", ROWS, variants=3).seed == SEED
    (first, _), (second, _) = fake.attempts
    assert not first.HasField("seed")
    assert (second.seed, second.numerics, second.model.digest) == (SEED, NUMERICS, DIGEST)


def test_it_resumes_labels(client_of):
    fake = FakeLatent(breaks=[3])
    with client_of(fake) as client:
        found = client.vary("toy", ROWS, variants=2, labels=[5, 6, 7, 8, 9])
    assert found.labels.tolist() == [[5, 5], [6, 6], [7, 7], [8, 8], [9, 9]]
    assert [label for each in fake.attempts[1][1] for label in each.labels] == [8, 9]


def test_it_reports_a_server_that_stays_away(client_of):
    with client_of(FakeLatent(breaks=[1, 0, 0, 0])) as client, pytest.raises(ServerUnavailable):
        client.vary("toy", ROWS, variants=3)


def test_it_refuses_other_numerics_when_it_resumes(client_of):
    fake = FakeLatent(breaks=[1], numerics=[NUMERICS, "gpu"])
    with client_of(fake) as client, pytest.raises(BadReply, match="'gpu', but 'cpu-test-fp32' was pinned"):
        client.vary("toy", ROWS)


def test_it_refuses_a_stream_that_ends_early(client_of):
    with (
        client_of(FakeLatent(ends_early=True)) as client,
        pytest.raises(BadReply, match="ended before result 2; 8 are"),
    ):
        client.vary("toy", ROWS, variants=2)


def test_it_refuses_fewer_names_than_columns(client_of):
    with client_of(FakeLatent()) as client, pytest.raises(BadReply, match="numbers a row for 1 columns"):
        client.classify("toy", ROWS)


def test_it_cuts_large_arrays_into_messages_of_a_mebibyte(client_of):
    rows = np.random.default_rng(0).integers(0, 256, (40, 256, 256, 1), dtype=np.uint8)  # 64 KiB each
    fake = FakeLatent()
    with client_of(fake) as client:
        latents = client.encode("toy", rows)
    assert [each.count for each in fake.attempts[0][1]] == [16, 16, 8]
    assert latents.tobytes() == (rows.reshape(40, -1)[:, :2] / np.float32(255)).astype(np.float32).tobytes()


def test_it_makes_no_messages_that_the_server_does_not_read(client_of, monkeypatch):
    made = []

    def counted(rows, labels):
        for message in messages_of(rows, labels):
            made.append(message.count)
            yield message

    monkeypatch.setattr("fount.latent.stream.messages_of", counted)
    fake = FakeLatent(pause_s=0.3)
    with client_of(fake) as client, pytest.raises(InternalError):
        client.encode("toy", np.zeros((2560, 128, 128, 1), np.uint8))  # 40 MiB
    assert sum(made) < 1280


def test_it_sends_a_row_above_a_mebibyte_alone(client_of):
    fake = FakeLatent()
    with client_of(fake) as client:
        assert client.encode("toy", np.zeros((2, 1025, 1024), np.uint8)).shape == (2, 2)
    assert [each.count for each in fake.attempts[0][1]] == [1, 1]
