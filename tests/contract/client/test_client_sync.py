"""The client against a real server that breaks when told."""

import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from google.rpc import code_pb2

from fount import Client
from fount.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    SampleFailed,
    ServerUnavailable,
)
from fount.retry import RetryPolicy
from fount.v1 import sampling_pb2
from tests.contract.fake_gateway import (
    DIGEST,
    NUMERICS,
    Behaviour,
    FakeGateway,
    error_info,
    invalid,
    overloaded,
    pixels,
    rich,
    serving,
)

QUICK = RetryPolicy(first_attempts=3, attempts=3, base_s=0.001)


@contextmanager
def client_of(gateway, timeout_s=10.0):
    with serving(gateway) as server, Client(server, timeout_s=timeout_s, retry=QUICK) as client:
        yield client


def expected(seed, start, count):
    return np.stack([pixels(seed, index) for index in range(start, start + count)])


def test_samples_come_as_an_array_with_their_provenance():
    with client_of(FakeGateway()) as client:
        samples = client.sample("digits-cvae", label=7, count=16, seed=1)
    assert (samples.shape, samples.dtype) == ((16, 4, 4, 1), np.uint8)
    assert np.array_equal(samples, expected(1, 0, 16))
    assert (samples.labels.tolist(), samples.seed, samples.numerics) == ([7] * 16, 1, NUMERICS)
    assert str(samples.model) == f"digits-cvae:1.0@{DIGEST}"


def test_the_seed_the_server_drew_is_told():
    with client_of(FakeGateway()) as client:
        assert client.sample("digits-cvae").seed == 4711


def test_floats_come_as_float32():
    with client_of(FakeGateway()) as client:
        samples = client.sample("digits-cvae", seed=1, encoding="float32")
    assert samples.dtype == np.float32
    assert np.array_equal(samples, expected(1, 0, 1) / np.float32(255))


def test_a_stream_comes_chunk_by_chunk():
    with client_of(FakeGateway()) as client:
        chunks = list(client.stream("digits-cvae", count=10, start_index=5, seed=1))
    assert [(chunk.start_index, len(chunk)) for chunk in chunks] == [(5, 4), (9, 4), (13, 2)]
    assert np.array_equal(np.concatenate(chunks), expected(1, 5, 10))


def test_png_files_come_in_chunks():
    with client_of(FakeGateway()) as client:
        (chunk,) = client.stream("digits-cvae", count=2, encoding="png")
    assert [file[:4] for file in chunk.files] == [b"\x89PNG", b"\x89PNG"]


def test_large_samples_are_joined_of_their_parts():
    with client_of(FakeGateway(chunk_count=1, part_bytes=5)) as client:
        assert np.array_equal(client.sample("digits-cvae", count=3, seed=2), expected(2, 0, 3))


def test_a_full_queue_is_waited_for():
    gateway = FakeGateway(attempts=[Behaviour(status=overloaded(0.01))])
    with client_of(gateway) as client:
        assert len(client.sample("digits-cvae")) == 1
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("retry_after_s", [None, 60.0], ids=["without a delay", "beyond the deadline"])
def test_a_full_queue_that_will_not_empty_in_time_is_told(retry_after_s):
    gateway = FakeGateway(attempts=[Behaviour(status=overloaded(retry_after_s))])
    with client_of(gateway) as client, pytest.raises(Overloaded, match="queue is full") as refused:
        client.sample("digits-cvae")
    assert refused.value.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (invalid(count="is 0", seed="is odd"), InvalidRequest),
        (rich(code_pb2.NOT_FOUND, "no such label", error_info("NO_LABEL")), NotFound),
        (rich(code_pb2.FAILED_PRECONDITION, "retired", error_info("RETIRED")), FailedPrecondition),
        (rich(code_pb2.INTERNAL, "oops", error_info("INTERNAL", {"request_id": "r-1"})), InternalError),
        (rich(code_pb2.DEADLINE_EXCEEDED, "late", error_info("LATE")), DeadlineExceeded),
    ],
    ids=["invalid", "not found", "failed precondition", "internal", "deadline"],
)
def test_what_is_final_is_asked_once(status, kind):
    gateway = FakeGateway(attempts=[Behaviour(status=status)])
    with client_of(gateway) as client, pytest.raises(kind):
        client.sample("digits-cvae")
    assert len(gateway.requests) == 1


def test_each_bad_field_is_told():
    gateway = FakeGateway(attempts=[Behaviour(status=invalid(count="is 0", seed="is odd"))])
    with client_of(gateway) as client, pytest.raises(InvalidRequest) as refused:
        client.sample("digits-cvae")
    assert refused.value.fields == [("count", "is 0"), ("seed", "is odd")]


def test_failed_samples_make_no_array():
    with client_of(FakeGateway(failed=frozenset({2}))) as client, pytest.raises(SampleFailed) as failed:
        client.sample("digits-cvae", count=8)
    assert failed.value.indices == [2]


def test_failed_samples_of_a_stream_come_with_the_others():
    with client_of(FakeGateway(failed=frozenset({2}))) as client:
        (chunk,) = client.stream("digits-cvae", count=4)
    assert [(error.index, error.code) for error in chunk.errors] == [(2, "INTERNAL")]
    assert np.asarray(chunk)[2].sum() == 0


def test_nobody_there_says_how_to_start_a_server():
    with Client("127.0.0.1:1", retry=QUICK) as client, pytest.raises(ServerUnavailable, match="fount serve"):
        client.models()


def test_a_whole_call_has_a_deadline():
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    with client_of(gateway, timeout_s=0.6) as client, pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
        client.sample("digits-cvae", count=8)


def test_a_stream_that_falls_silent_is_given_up():
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    with client_of(gateway, timeout_s=0.6) as client:
        chunks = client.stream("digits-cvae", count=8)
        assert next(chunks).start_index == 0
        with pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
            next(chunks)


def test_a_stream_may_take_longer_than_the_time_between_its_chunks():
    gateway = FakeGateway(attempts=[Behaviour(delay_s=0.25)])
    with client_of(gateway, timeout_s=0.6) as client:
        assert len(list(client.stream("digits-cvae", count=16))) == 4


def test_a_slow_reader_of_a_stream_is_not_given_up():
    with client_of(FakeGateway(), timeout_s=0.5) as client:
        chunks = client.stream("digits-cvae", count=8)
        next(chunks)
        time.sleep(0.8)
        assert next(chunks).start_index == 4


def test_closing_a_stream_cancels_the_call():
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    with client_of(gateway) as client:
        chunks = client.stream("digits-cvae", count=8)
        next(chunks)
        chunks.close()
        assert gateway.cancelled.wait(5)


def test_streams_leave_no_threads_behind():
    with client_of(FakeGateway()) as client:
        list(client.stream("digits-cvae", count=8))
    for thread in [thread for thread in threading.enumerate() if thread.name == "fount-watch"]:
        thread.join(5)
        assert not thread.is_alive()


class EmptyPictures(FakeGateway):
    def chunks(self, request):
        for start in range(0, request.count, 4096):
            yield sampling_pb2.SampleChunk(start_index=start, count=4096, data=bytes(4096 * 16))


def test_a_long_stream_takes_no_more_memory_than_a_short_one():
    with client_of(EmptyPictures()) as client:
        list(client.stream("digits-cvae", count=4096))
        tracemalloc.start()
        assert sum(len(chunk) for chunk in client.stream("digits-cvae", count=4096 * 320)) == 1310720
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 2**20  # of 20 MiB of samples


def test_models_are_listed_over_all_pages():
    gateway = FakeGateway()
    gateway.pages = [[gateway.model("a")], [gateway.model("b"), gateway.model("c")]]
    with client_of(gateway) as client:
        assert [info.name for info in client.models()] == ["a", "b", "c"]


def test_a_model_is_told_as_its_card_has_it():
    with client_of(FakeGateway()) as client:
        info = client.model("digits-cvae")
    assert (info.state, info.operations, info.labels[7], info.sample_shape) == ("ready", ("sample",), "7", (4, 4, 1))
    assert (info.parameters[0].name, info.parameters[0].range, info.parameters[0].default) == (
        "truncation", (0.5, 4.0), None,
    )  # fmt: skip
    assert (info.quality[0].interval, info.quality[0].real_value) == ((0.975, 0.985), 0.99)
    assert str(info.model) == f"digits-cvae:1.0@{DIGEST}"


def test_an_unknown_model_is_not_found():
    with client_of(FakeGateway()) as client, pytest.raises(NotFound, match='no model "ghost"'):
        client.model("ghost")


def test_the_server_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("FOUNT_SERVER", "gpu-box:1")
    with Client() as client:
        assert client.server == "gpu-box:1"


def test_a_wrong_argument_is_refused_before_a_stream_is_read():
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="count"):
        client.stream("digits-cvae", count="many")


@pytest.mark.parametrize("module", ["fount.client.sync", "fount.client.aio", "fount.cli.sample"])
def test_the_client_loads_neither_torch_nor_a_server(module):
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'service', 'handlers', 'yaml'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
