"""ScoringService.Score of texts, by messages and by the client."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from fount.client import aio
from fount.errors import InvalidRequest
from fount.v1 import sampling_pb2
from tests.contract.gateways import Running, fields
from tests.contract.given.streams import answer, ref, refused, requests, results, rows

VERSE = {"model": ref("verse")}
TEXTS = ("ab", "Grüße", "a\nb")


def message(*texts: bytes, **more) -> sampling_pb2.InputRows:
    values = {"count": len(texts), "lengths": [len(text) for text in texts], "data": b"".join(texts)}
    return sampling_pb2.InputRows(**values | more)


def scores(texts) -> np.ndarray:
    """What the in-memory model returns: minus the sum of the bytes, each divided by 255."""
    return np.array([[-sum(text.encode()) / 255] for text in texts])


async def test_it_scores_texts_of_any_length(running: Running) -> None:
    found = await results(running, "Score", VERSE, message(*(text.encode() for text in TEXTS)), message(b"12345678"))
    assert np.allclose(found, scores((*TEXTS, "12345678")), atol=1e-5)


async def test_a_client_scores_texts(running: Running) -> None:
    async with aio.Client(f"127.0.0.1:{running.gateway.port}") as client:
        assert np.allclose(await client.score("verse", list(TEXTS)), scores(TEXTS), atol=1e-5)
        assert np.allclose(await client.score("verse", "one"), scores(["one"]), atol=1e-5)
        many = ["a"] * 5000  # more than a message may hold
        assert np.allclose(await client.score("verse", many), scores(many), atol=1e-5)
        with pytest.raises(InvalidRequest, match="empty text at 1"):
            await client.score("verse", ["a", ""])
        with pytest.raises(InvalidRequest, match="which is no character"):
            await client.score("verse", ["a", "b\ud800"])


WRONG = {
    "too long": (message(b"123456789"), "rows.lengths[0]", "1 to 8 bytes"),
    "empty": (message(b"a", b""), "rows.lengths[1]", "1 to 8 bytes"),
    "no lengths": (message(b"ab", lengths=[]), "rows.lengths", "one a text"),
    "other bytes than lengths": (message(b"ab", lengths=[3]), "rows.data", "3 bytes"),
    "not UTF-8": (message(b"ab", b"a\xff"), "rows.data", "text 1 is not UTF-8 from byte 1"),
    "zero byte": (message(b"a\0b"), "rows.data", "zero byte at 1"),
    "too many": (message(*[b"a"] * 4097), "rows.count", "1 to 4096 texts"),
    "floats": (message(b"ab", dtype=2), "rows.dtype", "DTYPE_UINT8"),
}


@pytest.mark.parametrize(("wrong", "field", "words"), WRONG.values(), ids=WRONG)
async def test_it_refuses(running: Running, wrong: sampling_pb2.InputRows, field: str, words: str) -> None:
    error = await refused(running, "Score", *requests("Score", VERSE, wrong))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in fields(error)
    assert words in str(error)


async def test_lengths_of_pictures_are_refused(running: Running) -> None:
    error = await refused(running, "Score", *requests("Score", {}, rows(np.zeros((1, 2, 3, 1), np.uint8), lengths=[6])))
    assert fields(error) == ["rows.lengths"]


async def test_texts_are_scored_alike_in_any_messages(running: Running) -> None:
    _, _, whole = await answer(running, "Score", VERSE, message(b"a", b"b", b"c"))
    _, _, cut = await answer(running, "Score", VERSE, message(b"a"), message(b"b", b"c"))
    assert whole.tobytes() == cut.tobytes()
