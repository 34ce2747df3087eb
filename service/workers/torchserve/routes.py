"""The ways to the workers of one model version at one TorchServe: each process directly, or TorchServe's queue.

A `Call` enters a route, a `Reply` or an error of the service leaves. A worker process serves `WorkerService` itself;
its connection is kept open and checked by HTTP/2 pings, so it shows within seconds whether the process runs, is stopped
or has ended. TorchServe's queue is for workers whose address cannot be reached from here; nothing is known of these but
how many are ready.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import grpc
from google.protobuf.message import DecodeError

from fount.client.channel import options_for
from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from service.calls import Call, Reply
from service.errors import FountServiceError, TooLate, WorkerBusy, WorkerFault, WorkerLost
from service.workers import CALLS_PER_WORKER
from service.workers.torchserve.channel import TorchServeChannel, error_to_domain, says_no_worker
from service.workers.torchserve.messages import call_to_request, reply_to_domain

__all__ = ["DirectRoute", "QueueRoute", "Route"]

_UNKNOWN_COST_S = 1e-6  # of a call without an expected cost: enough for equal ones to alternate
_CONNECT_S = 1.0  # a worker that was not reached for so long is called through TorchServe
_EXECUTE = "/fount.worker.v1.WorkerService/Execute"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 1000),  # a process that is stopped answers no ping
    ("grpc.keepalive_timeout_ms", 1500),
    ("grpc.http2.ping_timeout_ms", 1500),  # this one decides; unset, it is a minute
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


class Route:
    """A way to workers of one model version.

    Attributes:
        calls: in flight.
        workers: how many it leads to now.
        is_direct: whether it leads to a process that is known to run.
        last_chosen: number of the pool's call for which it was last chosen; equal routes alternate by it.
    """

    is_direct = False

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.workers = 0
        self.last_chosen = 0
        self._closed = False

    @property
    def capacity(self) -> int:
        """How many more calls its workers accept."""
        return max(0, CALLS_PER_WORKER * self.workers - len(self.calls))

    @property
    def load_s(self) -> float:
        """The cost of its calls for each worker; summed anew each time, so that rounding errors do not accumulate."""
        return math.fsum(each.cost_s or _UNKNOWN_COST_S for each in self.calls) / max(1, self.workers)

    async def call(self, call: Call, timeout_s: float) -> Reply:
        """Execute a call; see `WorkerPool.call`."""
        self.calls.append(call)
        try:
            return await self._attempt(call, timeout_s)
        finally:
            self.calls.remove(call)

    async def close(self) -> None:
        """Lead nowhere from now on; calls in flight end as lost when their channel is closed."""
        self._closed = True
        self.workers = 0

    async def _attempt(self, call: Call, timeout_s: float) -> Reply:
        try:
            return await self._execute(call, timeout_s)
        except DecodeError as error:
            raise WorkerFault("the worker's answer is not a worker.v1 reply") from error
        except (asyncio.CancelledError, grpc.aio.UsageError) as error:
            task = asyncio.current_task()
            if self._closed and task and not task.cancelling():  # cancelled by the closed channel alone
                raise WorkerLost(f"the worker of {_name(call)} went away") from error
            raise

    async def _execute(self, call: Call, timeout_s: float) -> Reply:
        raise NotImplementedError


class QueueRoute(Route):
    """TorchServe's queue of one model version: one of its workers takes a call, which cannot be chosen or observed.

    Args:
        channel: to TorchServe.
        has_ready_worker: asks TorchServe, which has one message for a full queue and for absent workers.
        changed: called when a call that was cancelled has ended.
    """

    def __init__(
        self,
        channel: TorchServeChannel,
        has_ready_worker: Callable[[], Awaitable[bool]],
        changed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._channel = channel
        self._has_ready_worker = has_ready_worker
        self._changed = changed
        self._running: dict[Call, asyncio.Task[Reply]] = {}

    async def call(self, call: Call, timeout_s: float) -> Reply:
        """Execute a call; when cancelled it counts until it has ended, because TorchServe executes it all the same."""
        self.calls.append(call)
        task = self._running[call] = asyncio.get_running_loop().create_task(self._attempt(call, timeout_s))
        task.add_done_callback(lambda _: self._ended(call))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: self._changed())  # its caller no longer notices the free capacity
            raise

    def _ended(self, call: Call) -> None:
        self.calls.remove(call)
        task = self._running.pop(call)
        if not task.cancelled():
            task.exception()  # marks an error as retrieved, so that asyncio does not log it

    async def _execute(self, call: Call, timeout_s: float) -> Reply:
        key = call.target.model
        try:
            body = call_to_request(call).SerializeToString()
            answer = await self._channel.predict(key.name, key.version, body, timeout_s)
        except grpc.aio.AioRpcError as error:
            if says_no_worker(error) and await self._has_ready_worker():
                raise WorkerBusy(f"the queue of {_name(call)} is full") from error
            raise error_to_domain(error, call) from error
        return reply_to_domain(call, worker_pb2.WorkerReply.FromString(answer))


class DirectRoute(Route):
    """The connection to one worker process.

    Args:
        target: where it serves `WorkerService`, in gRPC's syntax.
        authorization: returns the metadata of a call.
        has_died: whether TorchServe has noticed that the process ended.
        changed: called when the connection was made or lost.
    """

    is_direct = True

    def __init__(
        self,
        target: str,
        authorization: Callable[[], tuple[tuple[str, str], ...]],
        has_died: Callable[[], Awaitable[bool]],
        changed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._channel = grpc.aio.insecure_channel(target, options=options_for(target, _OPTIONS))
        self._method = self._channel.unary_unary(
            _EXECUTE,
            request_serializer=worker_pb2.WorkerRequest.SerializeToString,
            response_deserializer=worker_pb2.WorkerReply.FromString,
        )
        self._authorization = authorization
        self._has_died = has_died
        self._changed = changed
        self._connected = asyncio.Event()
        self._was_connected = False
        self._recovery: asyncio.Task[None] | None = None
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @property
    def is_unreachable(self) -> bool:
        """Whether it was never connected, so that the worker must be called through TorchServe."""
        return not self._was_connected

    async def wait_connected(self) -> None:
        """Wait until it is connected, for a moment at most."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._connected.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """Disconnect; calls in flight end as lost."""
        await super().close()
        tasks = [task for task in (self._watching, self._recovery) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channel.close()

    async def _watch(self) -> None:
        """Follow the connection, and make it again whenever it is lost."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if (state is grpc.ChannelConnectivity.READY) != self._connected.is_set():
                if self._connected.is_set():
                    self._connected.clear()
                else:
                    self._connected.set()
                    self._was_connected = True
                self._update()
            await self._channel.wait_for_state_change(state)

    def _update(self) -> None:
        self.workers = int(self._connected.is_set() and self._recovery is None and not self._closed)
        self._changed()

    async def _execute(self, call: Call, timeout_s: float) -> Reply:
        try:
            reply = await self._method(call_to_request(call), timeout=timeout_s, metadata=self._authorization())
        except grpc.aio.AioRpcError as error:
            raise await self._translate(call, error) from error
        return reply_to_domain(call, reply)

    async def _translate(self, call: Call, error: grpc.aio.AioRpcError) -> FountServiceError:
        code = error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._wait_for_recovery()
            return TooLate(f"the worker of {_name(call)} did not answer in time")
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return WorkerBusy(f"the worker of {_name(call)} holds as many calls as it may")
        if code is grpc.StatusCode.UNAUTHENTICATED:
            return WorkerLost(f"the worker of {_name(call)} requires another token")
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            died = await self._has_died()
            return WorkerLost(f"the worker of {_name(call)} {'died' if died else 'went away'}", died=died)
        return WorkerFault(f"the worker of {_name(call)} refused a call: {code.name} {(error.details() or '')[:200]}")

    def _wait_for_recovery(self) -> None:
        """Use the worker no more until it has executed something: it may be stuck in a call."""

        async def wait() -> None:
            request = worker_pb2.WorkerRequest(operation=model_pb2.OPERATION_DESCRIBE)
            while True:
                try:
                    await self._method(request, metadata=self._authorization(), wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(_CONNECT_S)
                else:
                    break
            self._recovery = None
            self._update()

        if self._recovery is None and not self._closed:
            self._recovery = asyncio.get_running_loop().create_task(wait())
            self._update()


def _name(call: Call) -> str:
    return f"{call.target.model.name} {call.target.model.version}"
