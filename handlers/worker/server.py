"""Serve `fount.worker.v1.WorkerService` in a worker process, in addition to TorchServe's own loop.

TorchServe's path costs several milliseconds a call beside the model, and knows neither deadlines nor cancellation; so
gateways call workers here. Bytes of a WorkerRequest enter; bytes of a WorkerReply leave, by the same `Worker.handle`.
"""

from __future__ import annotations

import atexit
import hmac
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, cast

import grpc
import torch

from fount.worker.v1 import worker_pb2
from handlers.worker.model_lock import Call
from handlers.worker.registry import read_addresses, register
from handlers.worker.worker import SOCKETS, Worker

__all__ = ["start_server"]

_LOG = logging.getLogger(__name__)
_SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
_CALLS = 4
_SPARE_THREADS = 2  # for descriptions and refusals while all calls are held
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # or several workers would share a port
    # Gateways send a ping a second, also without calls, to notice a worker that hangs.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
)


class _DaemonThreads:
    """A pool of threads for gRPC that do not delay the end of the process, unlike those of a ThreadPoolExecutor."""

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        for i in range(count):
            threading.Thread(target=self._run, name=f"worker-call-{i}", daemon=True).start()

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Run a function in one of the threads."""
        future: Future[Any] = Future()
        self._work.put((future, lambda: work(*arguments)))
        return future

    def _run(self) -> None:
        # OpenMP's thread count belongs to the calling thread; this sets it to the one torch was configured with.
        torch.get_num_threads()
        while True:
            future, work = self._work.get()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - it is the caller's, as in every executor
                future.set_exception(error)
            del future, work  # or the last call's values would stay in memory


class _Servicer:
    """Answers calls of gateways, at most so many at a time."""

    def __init__(self, worker: Worker, calls: int, tokens: Path | None) -> None:
        self._worker = worker
        self._limit = calls
        self._slots = threading.Semaphore(calls)
        self._tokens = tokens
        self._token = ""

    def execute(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Run a call; a WorkerRequest in, a WorkerReply out."""
        self._authenticate(context)
        if not self._slots.acquire(blocking=False):
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"the worker holds {self._limit} calls; send fewer")
        try:
            call = Call()
            if not context.add_callback(lambda: self._worker.lock.cancel(call)):
                return b""  # it has already ended
            return self._worker.handle(request, call)
        finally:
            self._slots.release()

    def describe(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        """Describe the worker, whether it is busy or not; a DescribeResponse out."""
        self._authenticate(context)
        return worker_pb2.DescribeResponse(description=self._worker.describe()).SerializeToString()

    def _authenticate(self, context: grpc.ServicerContext) -> None:
        if self._tokens is None:
            return
        metadata = {str(key): value for key, value in context.invocation_metadata()}
        given = str(metadata.get("authorization", "")).encode()
        for token in self._known_tokens(self._tokens):
            if hmac.compare_digest(given, f"Bearer {token}".encode()):
                return
        _abort(
            context, grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong; send TorchServe's inference key"
        )

    def _known_tokens(self, file: Path) -> Iterator[str]:
        """Yield the key as last read, then as it is now: TorchServe may write its file after its workers started."""
        if self._token:
            yield self._token
        try:
            self._token = str(json.loads(file.read_text(encoding="utf-8"))["inference"]["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        yield self._token

    def abandon_calls(self) -> None:
        """End the process if a call runs: a thread within torch can neither be joined nor unwound."""
        if any(not self._slots.acquire(blocking=False) for _ in range(self._limit)):
            logging.shutdown()
            os._exit(1)


def start_server(worker: Worker, environment: Mapping[str, str] = os.environ) -> grpc.Server | None:
    """Serve a worker's model, and register its address for descriptions.

    Args:
        worker: the model, loaded or not.
        environment: FOUNT_WORKER_SOCKETS (the registry's folder; unset: nothing is served), FOUNT_WORKER_PORTS (a TCP
            port or a range like 7100-7163; unset: a Unix socket in that folder), FOUNT_WORKER_HOST (default 127.0.0.1),
            FOUNT_WORKER_CALLS (calls held, running or waiting; default 4) and FOUNT_WORKER_TOKENS (TorchServe's
            key_file.json, whose inference key every call must have; unset: no key is needed).

    Returns:
        The running server, which stops when it is no longer referenced; None when there is none.
    """
    folder = environment.get(SOCKETS)
    if not folder:
        return None
    try:
        calls = int(environment.get("FOUNT_WORKER_CALLS") or _CALLS)
        tokens = environment.get("FOUNT_WORKER_TOKENS")
        servicer = _Servicer(worker, calls, Path(tokens) if tokens else None)
        pool = cast("ThreadPoolExecutor", _DaemonThreads(calls + _SPARE_THREADS))
        server = grpc.server(pool, options=_OPTIONS)
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Execute": grpc.unary_unary_rpc_method_handler(servicer.execute),
            "Describe": grpc.unary_unary_rpc_method_handler(servicer.describe),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
        address = _bind(server, Path(folder), environment)
        server.start()
        register(Path(folder), address)
    except (OSError, RuntimeError, ValueError) as error:
        _LOG.warning("calls come through TorchServe alone, because this worker cannot serve gRPC: %s", error)
        return None
    atexit.register(servicer.abandon_calls)
    return server


def _bind(server: grpc.Server, folder: Path, environment: Mapping[str, str]) -> str:
    """Bind a Unix socket or the first free port.

    Raises:
        ValueError: the ports cannot be read.
        RuntimeError: nothing can be bound.
    """
    ports = environment.get("FOUNT_WORKER_PORTS")
    if not ports:
        address = f"unix:{folder}/{os.getpid()}.sock"
        server.add_insecure_port(address)
        return address
    first, _, last = ports.partition("-")
    taken = read_addresses(folder).values()
    host = environment.get("FOUNT_WORKER_HOST") or "127.0.0.1"
    for port in range(int(first), int(last or first) + 1):
        if f":{port}" in taken:
            continue
        try:
            server.add_insecure_port(f"{host}:{port}")
        except RuntimeError:  # of another program, or of a worker that starts at the same time
            continue
        return f":{port}"
    raise RuntimeError(f"no port of {ports} is free; set FOUNT_WORKER_PORTS to a larger range")


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError("unreachable: abort raises")
