"""Samples of text: where they end, what is refused, and a client that knows reflection alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from fount.v1 import model_pb2, sampling_pb2
from service.domain import Encoding
from service.rpc.chunks import piece_to_responses
from service.rpc.texts import trim_texts
from service.scheduler.work import Piece
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import Running, details, fields, label, labels, request, serving

MOST = 16
VERSE = model_pb2.ModelRef(name="verse")


@pytest.fixture
async def verse() -> AsyncIterator[Running]:
    async with serving(MemoryPool(models=[memory_model("verse", labels=(), max_text_bytes=MOST)])) as running:
        yield running


def texts_of(chunks) -> list[bytes]:
    texts = []
    for chunk in chunks:
        ends = np.cumsum(chunk.lengths).tolist()
        assert (len(ends), ends[-1]) == (chunk.count, len(chunk.data))
        texts += [chunk.data[end - length : end] for end, length in zip(ends, chunk.lengths, strict=True)]
    return texts


async def texts(running: Running, count: int, **query) -> list[bytes]:
    _, chunks = await running.sample(request(count, model=VERSE, **query))
    return texts_of(chunks)


async def test_the_header_says_that_samples_are_text(verse: Running) -> None:
    header, _ = await verse.sample(request(1, model=VERSE))
    spec = header.sample_spec
    assert (spec.modality, spec.layout, list(spec.dims)) == (spec.MODALITY_TEXT, spec.LAYOUT_T, [-1])
    assert (spec.dtype, spec.encoding) == (model_pb2.DTYPE_UINT8, model_pb2.ENCODING_UINT8)


async def test_texts_are_those_of_their_addresses_without_zeros(verse: Running) -> None:
    whole = await texts(verse, 20)
    assert len(set(whole)) == 20
    assert await texts(verse, 3, start_index=5) == whole[5:8]
    assert all(0 < len(text) < MOST and text.replace(b" ", b"").isalpha() for text in whole)


async def test_texts_have_labels(config) -> None:
    async with serving(MemoryPool(models=[memory_model("verse", max_text_bytes=MOST)])) as running:
        _, chunks = await running.sample(request(3, model=VERSE, condition=label(2)))
    assert labels(chunks) == [2, 2, 2]


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        (b"rose", b"rose"),
        (b"sixteen bytes it", b"sixteen bytes it"),
        (b"", b""),
        ("ends in é".encode()[:-1], b"ends in "),
        ("fifteen bytes €".encode(), "fifteen bytes €".encode()[:14]),
        ("\N{ROSE}".encode()[:3], b""),
        (b"one\ntwo", b"one\ntwo"),
        (b"a\0b", b"a"),
    ],
    ids=["short", "full", "empty", "cut character", "cut by the limit", "only a part", "lines", "zero inside"],
)
async def test_a_text_ends(verse: Running, drawn: bytes, text: bytes) -> None:
    verse.pool.faults.texts = {1: drawn[:MOST]}
    before, given, after = await texts(verse, 3)
    verse.pool.faults.texts = {}
    assert (given, [before, after]) == (text, (await texts(verse, 3))[::2])


async def test_a_text_ends_before_stop(verse: Running) -> None:
    verse.pool.faults.texts = {0: b"one. two. three", 1: b". two", 2: b"no end"}
    assert await texts(verse, 3, stop=". ") == [b"one", b"", b"no end"]


@pytest.mark.parametrize(
    ("drawn", "prefix", "stop", "text"),
    [
        ("a. b. c", "a.", ".", b"a. b"),
        ("aaab", "a", "aa", b"a"),
        ("a b", "a b", "b", b"a b"),
        ("één. x", "één", ".", "één".encode()),
    ],
    ids=["within the prefix", "across its end", "the prefix alone", "not ASCII"],
)
def test_stop_is_searched_for_after_the_prefix(drawn: str, prefix: str, stop: str, text: bytes) -> None:
    rows = np.frombuffer(drawn.encode().ljust(MOST, b"\0"), np.uint8)[None]
    piece = Piece(start_index=0, rows=rows, labels=None, failures={})
    assert trim_texts(piece, prefix=prefix.encode(), stop=stop.encode())[1] == [text]


async def test_bytes_that_are_not_utf8_are_a_failed_sample(verse: Running) -> None:
    verse.pool.faults.texts = {1: b"ab\xff\xfecd"}
    _, chunks = await verse.sample(request(3, model=VERSE))
    (error,) = [each for chunk in chunks for each in chunk.errors]
    assert (error.index, error.status.code) == (1, grpc.StatusCode.DATA_LOSS.value[0])
    info = error_details_pb2.ErrorInfo()
    assert error.status.details[0].Unpack(info)
    assert info.reason == "NOT_UTF8"
    assert "ff fe 63 64 at byte 2; draw another index" in error.status.message
    assert [len(text) > 0 for text in texts_of(chunks)] == [True, False, True]
    value = verse.gateway.metrics.registry.get_sample_value
    assert value("fount_failed_samples_total", {"model": "verse", "version": "1"}) == 1


async def test_bytes_after_stop_need_not_be_utf8(verse: Running) -> None:
    verse.pool.faults.texts = {0: b"ab|\xff"}
    assert await texts(verse, 1, stop="|") == [b"ab"]


async def test_a_sample_that_the_worker_failed_stays_failed(verse: Running) -> None:
    verse.pool.faults.bad_indices = frozenset({1})
    _, chunks = await verse.sample(request(2, model=VERSE))
    assert [(each.index, each.status.code) for each in chunks[0].errors] == [(1, 13)]


async def test_sample_once_returns_the_texts_of_a_stream(verse: Running) -> None:
    verse.pool.faults.texts = {0: b"", 2: b"a\xffb", 3: b"one|two"}
    message = sampling_pb2.SampleOnceRequest(request=request(5, model=VERSE, stop="|"))
    answer = await verse.sampling.SampleOnce(message, timeout=10)
    header, chunks = await verse.sample(message.request)
    assert answer.header == header
    assert texts_of([answer.chunk]) == texts_of(chunks)
    assert [each.index for each in answer.chunk.errors] == [2]


async def test_empty_texts_alone_are_a_chunk(verse: Running) -> None:
    verse.pool.faults.texts = {0: b"", 1: b""}
    assert await texts(verse, 2) == [b"", b""]


def test_chunks_of_texts_are_cut_by_their_bytes() -> None:
    piece = Piece(start_index=7, rows=np.zeros((4, 8), np.uint8), labels=None, failures={})
    framed = piece_to_responses(piece, Encoding.UINT8, texts=[b"abc", b"", b"de", b"f"], chunk_bytes=3)
    chunks = [sampling_pb2.SampleResponse.FromString(each).chunk for each in framed]
    assert [(each.start_index, list(each.lengths), each.data) for each in chunks] == [
        (7, [3, 0], b"abc"),
        (9, [2, 1], b"def"),
    ]


@pytest.mark.parametrize(
    ("query", "field", "remedy"),
    [
        ({"stop": ""}, "stop", "must not be empty; leave it out"),
        ({"stop": "é" * 9}, "stop", "must be at most the 16 bytes of a text of verse, got 18"),
        ({"encoding": model_pb2.ENCODING_PNG}, "encoding", "the model cannot give PNG; it gives UINT8"),
        ({"encoding": model_pb2.ENCODING_FLOAT32}, "encoding", "the model cannot give FLOAT32; it gives UINT8"),
    ],
    ids=["empty stop", "long stop", "png", "floats"],
)
async def test_a_wrong_field_is_named_with_a_remedy(verse: Running, query, field: str, remedy: str) -> None:
    error = await verse.refused(request(1, model=VERSE, **query))
    assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert remedy in details(error, error_details_pb2.BadRequest).field_violations[0].description


async def test_pictures_have_no_stop(running: Running) -> None:
    error = await running.refused(request(stop="a"))
    assert (error.code(), fields(error)) == (grpc.StatusCode.INVALID_ARGUMENT, ["stop"])
    assert "samples of toy are no texts; leave stop out" in error.details()


def _sample_by_reflection(address: str, name: str, count: int, stop: str) -> tuple[int, list[str]]:
    """Draw texts without any generated code; return the modality and the texts."""
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName("fount.v1.SamplingService").FindMethodByName("Sample")
        message, answer = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
        sample = channel.unary_stream(
            "/fount.v1.SamplingService/Sample",
            request_serializer=message.SerializeToString,
            response_deserializer=answer.FromString,
        )
        header, *others = sample(message(model={"name": name}, count=count, seed=7, stop=stop), timeout=20)
    return header.header.sample_spec.modality, [text.decode() for text in texts_of(each.chunk for each in others)]


async def test_a_client_of_reflection_alone_reads_texts(verse: Running) -> None:
    verse.pool.faults.texts = {0: "eine Ros\N{ROSE}e|".encode(), 1: b""}
    address = f"127.0.0.1:{verse.gateway.port}"
    modality, drawn = await asyncio.to_thread(_sample_by_reflection, address, "verse", 4, "|")
    assert modality == model_pb2.SampleSpec.MODALITY_TEXT
    assert drawn[:2] == ["eine Ros\N{ROSE}e", ""]
    assert all(drawn[2:])
