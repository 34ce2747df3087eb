"""The synchronous client against a real server that breaks as configured."""

import subprocess
import sys
import threading
import time
import tracemalloc

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
from fount.v1 import sampling_pb2
from tests.contract.fake_gateway import (
    DIGEST,
    NUMERICS,
    Behaviour,
    FakeGateway,
    error_info,
    invalid,
    overloaded,
    rich,
)


def test_it_returns_samples_as_an_array_with_provenance(client_of, expected):
    with client_of(FakeGateway()) as client:
        samples = client.sample("digits-cvae", label=7, count=16, seed=1)
    assert (samples.shape, samples.dtype) == ((16, 4, 4, 1), np.uint8)
    assert np.array_equal(samples, expected(1, 0, 16))
    assert (samples.labels.tolist(), samples.seed, samples.numerics) == ([7] * 16, 1, NUMERICS)
    assert str(samples.model) == f"digits-cvae:1.0@{DIGEST}"


def test_it_returns_the_seed_that_the_server_drew(client_of):
    with client_of(FakeGateway()) as client:
        assert client.sample("digits-cvae").seed == 4711


def test_it_returns_floats_as_float32(client_of, expected):
    with client_of(FakeGateway()) as client:
        samples = client.sample("digits-cvae", seed=1, encoding="float32")
    assert samples.dtype == np.float32
    assert np.array_equal(samples, expected(1, 0, 1) / np.float32(255))


def test_it_streams_chunk_by_chunk(client_of, expected):
    with client_of(FakeGateway()) as client:
        chunks = list(client.stream("digits-cvae", count=10, start_index=5, seed=1))
    assert [(chunk.start_index, len(chunk)) for chunk in chunks] == [(5, 4), (9, 4), (13, 2)]
    assert np.array_equal(np.concatenate(chunks), expected(1, 5, 10))


def test_it_streams_png_files(client_of):
    with client_of(FakeGateway()) as client:
        (chunk,) = client.stream("digits-cvae", count=2, encoding="png")
    assert [file[:4] for file in chunk.files] == [b"\x89PNG", b"\x89PNG"]


def test_it_joins_the_parts_of_large_samples(client_of, expected):
    with client_of(FakeGateway(chunk_count=1, part_bytes=5)) as client:
        assert np.array_equal(client.sample("digits-cvae", count=3, seed=2), expected(2, 0, 3))


def test_it_waits_for_an_overloaded_server(client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=overloaded(0.01))])
    with client_of(gateway) as client:
        assert len(client.sample("digits-cvae")) == 1
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("retry_after_s", [None, 60.0], ids=["without a delay", "beyond the deadline"])
def test_it_reports_an_overloaded_server_that_it_cannot_wait_for(client_of, retry_after_s):
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
def test_it_does_not_repeat_a_call_after_a_final_error(client_of, status, kind):
    gateway = FakeGateway(attempts=[Behaviour(status=status)])
    with client_of(gateway) as client, pytest.raises(kind):
        client.sample("digits-cvae")
    assert len(gateway.requests) == 1


def test_it_reports_every_wrong_field(client_of):
    gateway = FakeGateway(attempts=[Behaviour(status=invalid(count="is 0", seed="is odd"))])
    with client_of(gateway) as client, pytest.raises(InvalidRequest) as refused:
        client.sample("digits-cvae")
    assert refused.value.fields == [("count", "is 0"), ("seed", "is odd")]


def test_it_returns_no_array_when_samples_failed(client_of):
    with client_of(FakeGateway(failed=frozenset({2}))) as client, pytest.raises(SampleFailed) as failed:
        client.sample("digits-cvae", count=8)
    assert failed.value.indices == [2]


def test_it_streams_failed_samples_with_the_others(client_of):
    with client_of(FakeGateway(failed=frozenset({2}))) as client:
        (chunk,) = client.stream("digits-cvae", count=4)
    assert [(error.index, error.code) for error in chunk.errors] == [(2, "INTERNAL")]
    assert np.asarray(chunk)[2].sum() == 0


def test_it_reports_how_to_start_a_server_when_none_answers(quick):
    with Client("127.0.0.1:1", retry=quick) as client, pytest.raises(ServerUnavailable, match="fount serve"):
        client.models()


def test_it_limits_the_time_of_a_whole_call(client_of):
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    with client_of(gateway, timeout_s=0.6) as client, pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
        client.sample("digits-cvae", count=8)


def test_it_gives_up_on_a_stream_that_stops_sending(client_of):
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    with client_of(gateway, timeout_s=0.6) as client:
        chunks = client.stream("digits-cvae", count=8)
        assert next(chunks).start_index == 0
        with pytest.raises(DeadlineExceeded, match=r"within 0\.6 s"):
            next(chunks)


def test_it_limits_the_time_between_chunks_and_not_of_the_stream(client_of):
    gateway = FakeGateway(attempts=[Behaviour(delay_s=0.25)])
    with client_of(gateway, timeout_s=0.6) as client:
        assert len(list(client.stream("digits-cvae", count=16))) == 4


def test_it_does_not_time_out_a_slow_reader(client_of):
    with client_of(FakeGateway(), timeout_s=0.5) as client:
        chunks = client.stream("digits-cvae", count=8)
        next(chunks)
        time.sleep(0.8)
        assert next(chunks).start_index == 4


def test_it_cancels_the_call_when_a_stream_is_closed(client_of):
    gateway = FakeGateway(attempts=[Behaviour(silent_after=1)])
    with client_of(gateway) as client:
        chunks = client.stream("digits-cvae", count=8)
        next(chunks)
        chunks.close()
        assert gateway.cancelled.wait(5)


def test_it_leaves_no_threads_behind(client_of):
    before = set(threading.enumerate())  # streams that earlier tests left open have threads, too
    with client_of(FakeGateway()) as client:
        list(client.stream("digits-cvae", count=8))
    for thread in [thread for thread in set(threading.enumerate()) - before if thread.name == "fount-watch"]:
        thread.join(5)
        assert not thread.is_alive()


class BlankSamples(FakeGateway):
    def chunks(self, request):
        for start in range(0, request.count, 4096):
            yield sampling_pb2.SampleChunk(start_index=start, count=4096, data=bytes(4096 * 16))


def test_it_streams_in_constant_memory(client_of):
    with client_of(BlankSamples()) as client:
        list(client.stream("digits-cvae", count=4096))
        tracemalloc.start()
        assert sum(len(chunk) for chunk in client.stream("digits-cvae", count=4096 * 320)) == 1310720
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 2**20  # of 20 MiB of samples


def test_it_lists_the_models_of_all_pages(client_of):
    gateway = FakeGateway()
    gateway.pages = [[gateway.model("a")], [gateway.model("b"), gateway.model("c")]]
    with client_of(gateway) as client:
        assert [info.name for info in client.models()] == ["a", "b", "c"]


def test_it_returns_a_model_with_its_card(client_of):
    with client_of(FakeGateway()) as client:
        info = client.model("digits-cvae")
    assert (info.state, info.operations, info.labels[7], info.sample_shape) == ("ready", ("sample",), "7", (4, 4, 1))
    assert (info.parameters[0].name, info.parameters[0].range, info.parameters[0].default) == (
        "truncation", (0.5, 4.0), None,
    )  # fmt: skip
    assert (info.quality[0].interval, info.quality[0].real_value) == ((0.975, 0.985), 0.99)
    assert str(info.model) == f"digits-cvae:1.0@{DIGEST}"


def test_it_reports_an_unknown_model(client_of):
    with client_of(FakeGateway()) as client, pytest.raises(NotFound, match='no model "ghost"'):
        client.model("ghost")


def test_it_reads_the_server_from_the_environment(monkeypatch):
    monkeypatch.setenv("FOUNT_SERVER", "gpu-box:1")
    with Client() as client:
        assert client.server == "gpu-box:1"


def test_it_refuses_a_wrong_argument_before_a_stream_is_read():
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="count"):
        client.stream("digits-cvae", count="many")


@pytest.mark.parametrize("module", ["fount.client.sync", "fount.client.aio", "fount.cli.sample"])
def test_it_loads_neither_torch_nor_the_server(module):
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'service', 'handlers', 'yaml'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
