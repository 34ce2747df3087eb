"""A worker that serves gRPC itself."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2, worker_pb2_grpc
from handlers.worker.server import start_server
from handlers.worker.worker import Worker
from tests.handlers.stepping_toys import SteppedToy, values_of
from tests.handlers.toys import request, sample_item, send

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
def folder(tmp_path: Path) -> Path:
    """The folder in which workers register."""
    return tmp_path


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
