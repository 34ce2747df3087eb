"""A worker that serves gRPC itself."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2, worker_pb2_grpc
from handlers.worker.model_lock import Call
from handlers.worker.server import start_server
from handlers.worker.worker import Worker
from tests.handlers.stepping_toys import SteppedToy, call, values_of
from tests.handlers.toys import ToySampler, load, request, sample_item, send

DESCRIBE = worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE)


Serve = Callable[..., worker_pb2_grpc.WorkerServiceStub]


class Blocker:
    """Stops the stepped toy before step 2 until it is released."""

    def __init__(self) -> None:
        self.reached, self.released, self.steps = threading.Semaphore(0), threading.Event(), list[int]()

    def __call__(self, step: int) -> None:
        self.steps.append(step)
        if step == 2 and not self.released.is_set():
            self.reached.release()
            assert self.released.wait(20)


@pytest.fixture
def blocker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocker]:
    blocker = Blocker()
    monkeypatch.setattr(SteppedToy, "when_stepping", staticmethod(blocker))
    yield blocker
    blocker.released.set()


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder in which workers register; sockets need short paths."""
    with TemporaryDirectory(prefix="w-") as folder:
        yield Path(folder)


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Serves a worker, and returns a stub connected to it."""
    with ExitStack() as stack:

        def start(worker: Worker, **environment: str) -> worker_pb2_grpc.WorkerServiceStub:
            server = start_server(worker, {"FOUNT_WORKER_SOCKETS": str(folder)} | environment)
            assert server is not None
            stack.callback(lambda: server.stop(None).wait(10))
            address = (folder / f"{os.getpid()}.address").read_text()
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.insecure_channel(address if address.startswith("unix:") else f"127.0.0.1{address}", options)
            return worker_pb2_grpc.WorkerServiceStub(stack.enter_context(channel))

        yield start


@pytest.fixture
def token_file(folder: Path) -> Path:
    return write_token(folder / "key_file.json", "first")


def write_token(file: Path, key: str) -> Path:
    file.write_text(json.dumps({"inference": {"key": key}, "management": {"key": "another"}}))
    return file


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


@contextmanager
def occupied_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def code_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    code: grpc.StatusCode = error.value.code()
    return code


def test_there_is_no_server_without_a_folder(worker: Worker) -> None:
    assert start_server(worker, {"FOUNT_WORKER_PORTS": "7100-7163"}) is None


def test_it_returns_over_a_unix_socket_what_torchserve_gets(worker: Worker, serve: Serve, folder: Path) -> None:
    message = request(sample_item(count=40), sample_item(seed=2, count=3))
    assert values_of(serve(worker).Execute(message)) == values_of(send(worker, message))
    assert (folder / f"{os.getpid()}.address").read_text() == f"unix:{folder}/{os.getpid()}.sock"


def test_it_returns_over_tcp_what_torchserve_gets(worker: Worker, serve: Serve) -> None:
    with occupied_port() as port:
        stub = serve(worker, FOUNT_WORKER_PORTS=f"{port}-{port + 20}")
        message = request(sample_item(count=40))
        assert values_of(stub.Execute(message)) == values_of(send(worker, message))


def test_it_takes_the_first_free_port_of_the_range(worker: Worker, serve: Serve, folder: Path) -> None:
    with occupied_port() as port:
        serve(worker, FOUNT_WORKER_PORTS=f"{port}-{port + 20}")
        address = (folder / f"{os.getpid()}.address").read_text()
    assert port < int(address.removeprefix(":")) <= port + 20


@pytest.mark.parametrize("ports", ["{port}", "seven", "{port}-{port}", "9-8"], ids=["taken", "word", "range", "empty"])
def test_it_is_served_by_torchserve_alone_without_a_port(
    worker: Worker, folder: Path, caplog: pytest.LogCaptureFixture, ports: str
) -> None:
    with occupied_port() as port:
        environment = {"FOUNT_WORKER_SOCKETS": str(folder), "FOUNT_WORKER_PORTS": ports.format(port=port)}
        assert start_server(worker, environment) is None
    assert "calls come through TorchServe alone" in caplog.text
    assert not list(folder.iterdir())


def test_calls_of_both_ways_at_the_same_time_get_the_same_bytes(worker: Worker, serve: Serve) -> None:
    messages = [request(sample_item(seed=seed, count=20)) for seed in range(1, 9)]
    alone = [values_of(send(worker, message)) for message in messages]
    stub = serve(worker)
    with ThreadPoolExecutor(2) as threads:
        direct = threads.submit(lambda: [values_of(stub.Execute(message)) for message in messages * 3])
        queued = threads.submit(lambda: [values_of(send(worker, message)) for message in messages * 3])
        assert direct.result() == queued.result() == alone * 3


def test_a_model_that_was_not_loaded_answers_unavailable(tmp_path: Path, serve: Serve) -> None:
    stub = serve(load(tmp_path, ToySampler))
    assert stub.Describe(worker_pb2.DescribeRequest()).description.model.state == model_pb2.Model.STATE_UNAVAILABLE
    assert stub.Execute(request(sample_item())).items[0].status.code == grpc.StatusCode.UNAVAILABLE.value[0]


def test_it_describes_itself_while_it_is_busy(stepped: Worker, serve: Serve, blocker: Blocker) -> None:
    stub = serve(stepped)
    running = stub.Execute.future(call(sample_item()))
    assert blocker.reached.acquire(timeout=20)
    assert stub.Describe(worker_pb2.DescribeRequest(), timeout=10).description.model.ref.name == "toy"
    assert not running.done()


def test_a_description_among_calls_waits_for_them(stepped: Worker, serve: Serve, blocker: Blocker) -> None:
    stub = serve(stepped)
    running = stub.Execute.future(call(sample_item()))
    assert blocker.reached.acquire(timeout=20)
    with pytest.raises(grpc.RpcError) as error:
        stub.Execute(DESCRIBE, timeout=0.3)
    assert code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED
    blocker.released.set()
    assert stub.Execute(DESCRIBE, timeout=10).description.model.ref.name == "toy"
    assert running.result().items[0].HasField("value")


def test_it_holds_so_many_calls_and_refuses_more_at_once(stepped: Worker, serve: Serve, blocker: Blocker) -> None:
    stub = serve(stepped, FOUNT_WORKER_CALLS="2")
    running = stub.Execute.future(call(sample_item(seed=1)))
    assert blocker.reached.acquire(timeout=20)
    waiting = stub.Execute.future(call(sample_item(seed=2)))
    wait_for(lambda: len(calls_of(stepped)) == 2)
    with pytest.raises(grpc.RpcError) as error:
        stub.Execute(call(sample_item(seed=3)), timeout=10)
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
    blocker.released.set()
    assert [each.result().items[0].HasField("value") for each in (running, waiting)] == [True, True]
    assert stub.Execute(call(sample_item(seed=3))).items[0].HasField("value")


def test_the_time_spent_waiting_for_other_calls_is_reported(stepped: Worker, serve: Serve, blocker: Blocker) -> None:
    stub = serve(stepped)
    running = stub.Execute.future(call(sample_item()))
    assert blocker.reached.acquire(timeout=20)
    waiting = stub.Execute.future(call(sample_item()))
    wait_for(lambda: len(calls_of(stepped)) == 2)
    started = time.perf_counter()
    time.sleep(0.2)
    waited_s = time.perf_counter() - started
    blocker.released.set()
    assert waiting.result().timings.queue_s >= waited_s
    assert running.result().timings.queue_s < waited_s


@pytest.mark.parametrize("ended_by", ["cancel", "deadline"])
def test_a_running_call_stops_after_the_step(stepped: Worker, serve: Serve, blocker: Blocker, ended_by: str) -> None:
    stub = serve(stepped)
    running = stub.Execute.future(call(sample_item(), steps=50), timeout=1.0 if ended_by == "deadline" else None)
    assert blocker.reached.acquire(timeout=20)
    if ended_by == "cancel":
        running.cancel()
    wait_for(running.done)
    wait_for(lambda: calls_of(stepped)[0].is_cancelled)
    blocker.released.set()
    wait_for(lambda: len(calls_of(stepped)) == 0)
    assert blocker.steps == [0, 1, 2]


def test_a_cancelled_call_that_waits_never_runs_and_frees_its_place(
    stepped: Worker, serve: Serve, blocker: Blocker
) -> None:
    stub = serve(stepped, FOUNT_WORKER_CALLS="2")
    running = stub.Execute.future(call(sample_item()))
    assert blocker.reached.acquire(timeout=20)
    waiting = stub.Execute.future(call(sample_item()))
    wait_for(lambda: len(calls_of(stepped)) == 2)
    waiting.cancel()
    wait_for(lambda: len(calls_of(stepped)) == 1)
    blocker.released.set()
    assert running.result().items[0].HasField("value")
    assert blocker.steps == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("metadata", [(), bearer("wrong"), bearer(""), (("authorization", "first"),)],
                         ids=["none", "wrong", "empty", "bare"])  # fmt: skip
@pytest.mark.parametrize("method", ["Execute", "Describe"])
def test_a_call_without_the_token_is_refused(
    worker: Worker, serve: Serve, token_file: Path, method: str, metadata: tuple[tuple[str, str], ...]
) -> None:
    stub = serve(worker, FOUNT_WORKER_TOKENS=str(token_file))
    message = DESCRIBE if method == "Execute" else worker_pb2.DescribeRequest()
    with pytest.raises(grpc.RpcError) as error:
        getattr(stub, method)(message, metadata=metadata)
    assert code_of(error) is grpc.StatusCode.UNAUTHENTICATED


def test_a_token_is_known_once_torchserve_has_written_it(worker: Worker, serve: Serve, folder: Path) -> None:
    file = folder / "key_file.json"
    stub = serve(worker, FOUNT_WORKER_TOKENS=str(file))
    with pytest.raises(grpc.RpcError) as error:
        stub.Execute(DESCRIBE, metadata=bearer("first"))
    assert code_of(error) is grpc.StatusCode.UNAUTHENTICATED
    for key in ("first", "second"):
        write_token(file, key)
        assert stub.Execute(DESCRIBE, metadata=bearer(key)).HasField("description")


def test_processes_that_ended_are_neither_listed_nor_kept(worker: Worker, serve: Serve, folder: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        for pid in (ended.pid, other.pid):
            (folder / f"{pid}.address").write_text(f"unix:/{pid}")
        (folder / f"{ended.pid}.sock").touch()
        reply = serve(dataclasses.replace(worker, sockets=folder)).Execute(DESCRIBE)
        assert {each.pid: each.address for each in reply.description.processes} == {
            os.getpid(): f"unix:{folder}/{os.getpid()}.sock",
            other.pid: f"unix:/{other.pid}",
        }
        other.communicate(b"\n")
    assert not list(folder.glob(f"{ended.pid}.*"))


def test_a_process_that_ended_later_is_not_listed_any_more(worker: Worker, folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        (folder / f"{ended.pid}.address").write_text("unix:/ended")
    reply = send(dataclasses.replace(worker, sockets=folder), DESCRIBE)
    assert not reply.description.processes


def test_a_running_call_does_not_keep_the_process_alive(folder: Path) -> None:
    environment = os.environ | {"FOUNT_WORKER_SOCKETS": str(folder)}
    process = subprocess.Popen([sys.executable, "-c", BUSY_SCRIPT], env=environment, stdin=subprocess.PIPE)
    wait_for(lambda: (folder / f"{process.pid}.address").exists())
    with grpc.insecure_channel((folder / f"{process.pid}.address").read_text()) as channel:
        stub = worker_pb2_grpc.WorkerServiceStub(channel)
        running = stub.Execute.future(DESCRIBE, wait_for_ready=True)
        wait_for((folder / "busy").exists)
        process.communicate(b"\n", timeout=10)  # the end of TorchServe's loop
        assert running.code() is grpc.StatusCode.UNAVAILABLE


def calls_of(worker: Worker) -> list[Call]:
    """The calls that run or wait."""
    return list(worker.lock._calls)


BUSY_SCRIPT = """
import os, pathlib, sys, threading
from handlers.loading.load import LoadedModel
from handlers.worker import server, worker

class Busy(worker.Worker):
    def handle(self, request, call):
        pathlib.Path(os.environ["FOUNT_WORKER_SOCKETS"], "busy").touch()
        threading.Event().wait()

running = server.start_server(Busy(model=LoadedModel()))
input()
sys.exit(1)
"""


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "the condition did not become true"
        time.sleep(0.005)
