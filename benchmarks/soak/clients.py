"""The load of a soak: clients that compare every byte with reference samples drawn before the first fault.

Each requests ranges of one model's samples. A broken request is continued from where it broke, as Fount's own client
does, but implemented here, so that status, duration and bytes of every attempt are checked.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import grpc

from benchmarks.soak.report import Tally
from fount.client import aio
from fount.client.status import error_of
from fount.errors import Overloaded
from fount.sampling.request import SampleQuery, sample_request
from fount.v1 import sampling_pb2, sampling_pb2_grpc

__all__ = ["Reference", "SoakClient", "draw_reference"]

_SEED = 90_210
_GRACE_S = 5.0  # a call that is open for longer after its deadline hangs
_LOST_S = 150.0  # a request that is not complete by then is lost, despite all attempts
_PAUSE_S = 0.3
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))  # its own connection, without retries
_EXPECTED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Samples of one model, drawn before the first fault.

    Attributes:
        model: with version and digest.
        numerics: of the samples.
        data: samples 0 to `count` of the soak's seed.
        labels: one for each sample.
        sample_bytes: size of one sample.
    """

    model: str
    numerics: str
    data: bytes
    labels: list[int]
    sample_bytes: int

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.labels)


async def draw_reference(server: str, model: str, count: int) -> Reference:
    """Draw the first samples of a model.

    Raises:
        FountError: the server does not work before any fault.
    """
    async with aio.Client(server, timeout_s=120) as client:
        samples = await client.sample(model, count=count, seed=_SEED)
    labels = [] if samples.labels is None else samples.labels.tolist()
    return Reference(model=str(samples.model), numerics=samples.numerics, data=samples.tobytes(), labels=labels,
                     sample_bytes=samples[0].nbytes)  # fmt: skip


@dataclass(kw_only=True)
class SoakClient:
    """One client.

    Attributes:
        kind: its name in the report.
        server: the gateway.
        reference: the samples it requests.
        tally: records everything.
        rng: its own random numbers.
        counts: smallest and largest number of samples of a request.
        deadline_s: of every attempt.
        pause_s: between requests.
        vanishes_s: mean time until it disconnects in the middle of a request; None is never.
        interactive: whether requests have interactive priority.
    """

    kind: str
    server: str
    reference: Reference
    tally: Tally
    rng: random.Random
    counts: tuple[int, int]
    deadline_s: float = 60.0
    pause_s: float = 0.0
    vanishes_s: float | None = None
    interactive: bool = False

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until `stop` is set; complete the last one."""
        while not stop.is_set():
            async with grpc.aio.insecure_channel(self.server, _OPTIONS) as channel:
                stub = sampling_pb2_grpc.SamplingServiceStub(channel)
                for _ in range(20):  # requests of one connection
                    if stop.is_set():
                        return
                    await self._request(stub)
                    await asyncio.sleep(self.pause_s * self.rng.uniform(0.5, 1.5))
                    if self.vanishes_s:
                        break

    async def _request(self, stub: sampling_pb2_grpc.SamplingServiceStub) -> None:
        """Complete one request, in as many attempts as necessary."""
        count = min(self.reference.count, self.rng.randint(*self.counts))
        first = self.rng.randint(0, self.reference.count - count)
        request = _Request(client=self, first=first, count=count)
        deadline = time.monotonic() + _LOST_S
        if self.vanishes_s is not None:
            await self._vanish(request, stub, self.vanishes_s)
            return
        while request.received < count:
            pause_s = await request.attempt(stub)
            if pause_s is None:
                return
            if time.monotonic() > deadline:
                self.tally.violate(f"{self.kind}: {count} samples not complete after {_LOST_S:g} s: {request.last}")
                return
            await asyncio.sleep(pause_s)
        self.tally.completed(self.kind, retried=request.attempts > 1)

    async def _vanish(self, request: _Request, stub: sampling_pb2_grpc.SamplingServiceStub, mean_s: float) -> None:
        try:
            async with asyncio.timeout(self.rng.expovariate(1 / mean_s)):
                await request.attempt(stub)
        except TimeoutError:
            self.tally.vanished += 1


@dataclass(kw_only=True)
class _Request:
    """One requested range, and how much of it has been received."""

    client: SoakClient
    first: int
    count: int
    received: int = 0
    attempts: int = 0
    last: str = ""

    async def attempt(self, stub: sampling_pb2_grpc.SamplingServiceStub) -> float | None:
        """Request the remaining samples.

        Returns:
            Seconds until the next attempt, 0 when complete; None when this request is abandoned.
        """
        client, self.attempts = self.client, self.attempts + 1
        start = time.monotonic()
        call = stub.Sample(self._message(), timeout=client.deadline_s)
        try:
            async with asyncio.timeout(client.deadline_s + _GRACE_S) as limit:
                async for response in call:
                    self._check(response)
            if self.received < self.count:
                client.tally.violate(f"{client.kind}: the stream ended with OK at {self.received} of {self.count}")
                return None
            return 0.0
        except grpc.aio.AioRpcError as error:
            return self._check_error(error, time.monotonic() - start)
        except TimeoutError:
            if not limit.expired():
                raise  # the timeout of a client that disconnects
            client.tally.hang(f"{client.kind}: {self.count} samples open {_GRACE_S:g} s past their deadline")
            return None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            client.tally.failed(client.kind, "CANCELLED", "by the server")  # which gRPC raises in this way
            client.tally.violate(f"{client.kind}: CANCELLED, by the server")
            return None
        finally:
            call.cancel()

    def _message(self) -> sampling_pb2.SampleRequest:
        query: SampleQuery = {
            "count": self.count - self.received, "start_index": self.first + self.received, "seed": _SEED,
            "numerics": self.client.reference.numerics,
            "priority": "interactive" if self.client.interactive else "bulk",
        }  # fmt: skip
        return sample_request(self.client.reference.model, query)

    def _check(self, response: sampling_pb2.SampleResponse) -> None:
        reference, tally = self.client.reference, self.client.tally
        if response.WhichOneof("kind") == "header":
            header = response.header
            if (header.seed, header.numerics) != (
                _SEED,
                reference.numerics,
            ) or header.model.digest not in reference.model:
                tally.violate(f"{self.client.kind}: the header is {header}")
            return
        chunk = response.chunk
        start, end = chunk.start_index, chunk.start_index + chunk.count
        data = reference.data[start * reference.sample_bytes : end * reference.sample_bytes]
        labels = reference.labels[start:end]
        if start != self.first + self.received or chunk.errors:
            tally.violate(
                f"{self.client.kind}: chunk at {start} instead of {self.first + self.received}; {chunk.errors}"
            )
        if chunk.data != data or list(chunk.labels) != labels:
            tally.bytes_wrong += sum(a != b for a, b in zip(chunk.data, data, strict=False)) or 1
        self.received += chunk.count
        tally.received(chunk.count, len(chunk.data))

    def _check_error(self, error: grpc.aio.AioRpcError, seconds: float) -> float | None:
        """Record a failed attempt, and whether its status is explained by faults; returns as `attempt`."""
        client, code = self.client, error.code()
        message = error_of(error, client.server)
        self.last = f"{code.name}: {message}"
        client.tally.failed(client.kind, code.name, str(message))
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and seconds > client.deadline_s - 0.5:
            return 0.0
        if code not in _EXPECTED:
            client.tally.violate(f"{client.kind}: {code.name} after {seconds:.1f} s: {message}")
            return None
        return (message.retry_after_s or _PAUSE_S) if isinstance(message, Overloaded) else _PAUSE_S
