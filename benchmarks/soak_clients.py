"""The load of a soak: clients that compare every byte they get with what it was while all was well.

Each wants ranges of one model's samples. A broken request is asked again from where it broke, as Fount's own client
does, but by hand: here every attempt's status, duration and bytes are looked at.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import grpc

from benchmarks.soak_tally import Tally
from fount.client import aio
from fount.client.status import error_of
from fount.errors import Overloaded
from fount.sampling.request import SampleQuery, sample_request
from fount.v1 import sampling_pb2, sampling_pb2_grpc

__all__ = ["SEED", "SoakClient", "Truth", "draw_truth", "read_truths"]

SEED = 90_210
_GRACE_S = 5.0  # beyond its deadline, a call hangs
_LOST_S = 150.0  # a request that is not whole by then is lost, however often it was asked again
_PAUSE_S = 0.3
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))  # a connection of its own, asking once
_FAULTS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Samples of one model, drawn while all was well.

    Attributes:
        model: with version and digest.
        numerics: what they were drawn on.
        data: samples 0 to `count` of `SEED`.
        labels: one each.
        sample_bytes: the size of one.
    """

    model: str
    numerics: str
    data: bytes
    labels: list[int]
    sample_bytes: int

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.labels)


async def read_truths(server: str, models: list[str], count: int) -> list[Truth]:
    """Draw what every later byte is compared with."""
    return [await draw_truth(server, model, count) for model in models]


async def draw_truth(server: str, model: str, count: int) -> Truth:
    """Draw the first samples of a model.

    Raises:
        FountError: it is not well to begin with.
    """
    async with aio.Client(server, timeout_s=120) as client:
        samples = await client.sample(model, count=count, seed=SEED)
    labels = [] if samples.labels is None else samples.labels.tolist()
    return Truth(model=str(samples.model), numerics=samples.numerics, data=samples.tobytes(), labels=labels,
                 sample_bytes=samples[0].nbytes)  # fmt: skip


@dataclass(kw_only=True)
class SoakClient:
    """One client.

    Attributes:
        kind: what it is called in the report.
        server: the gateway.
        truth: what it draws, and what must come.
        tally: is told everything.
        chance: its own random numbers.
        counts: least and most samples of a request.
        deadline_s: of every attempt.
        pause_s: between requests.
        vanishes_s: mean time after which it is gone in the middle of a request; 0 stays.
        interactive: whether somebody sits waiting.
    """

    kind: str
    server: str
    truth: Truth
    tally: Tally
    chance: random.Random
    counts: tuple[int, int]
    deadline_s: float = 60.0
    pause_s: float = 0.0
    vanishes_s: float = 0.0
    interactive: bool = False

    async def run(self, stop: asyncio.Event) -> None:
        """Ask until told to stop; the request that runs then is ended."""
        while not stop.is_set():
            async with grpc.aio.insecure_channel(self.server, _OPTIONS) as channel:
                stub = sampling_pb2_grpc.SamplingServiceStub(channel)
                for _ in range(20):  # then a new connection
                    if stop.is_set():
                        return
                    await self._ask(stub)
                    await asyncio.sleep(self.pause_s * self.chance.uniform(0.5, 1.5))
                    if self.vanishes_s:
                        break

    async def _ask(self, stub: sampling_pb2_grpc.SamplingServiceStub) -> None:
        """One request, in as many attempts as it takes."""
        count = min(self.truth.count, self.chance.randint(*self.counts))
        first = self.chance.randint(0, self.truth.count - count)
        request = _Request(client=self, first=first, count=count)
        ends = time.monotonic() + _LOST_S
        if self.vanishes_s:
            await self._vanish(request, stub)
            return
        while request.got < count:
            pause_s = await request.attempt(stub)
            if pause_s is None:
                return
            if time.monotonic() > ends:
                self.tally.violate(f"{self.kind}: {count} samples not whole after {_LOST_S:g} s: {request.last}")
                return
            await asyncio.sleep(pause_s)
        self.tally.answered(self.kind, retried=request.attempts > 1)

    async def _vanish(self, request: _Request, stub: sampling_pb2_grpc.SamplingServiceStub) -> None:
        try:
            async with asyncio.timeout(self.chance.expovariate(1 / self.vanishes_s)):
                await request.attempt(stub)
        except TimeoutError:
            self.tally.vanished += 1


@dataclass(kw_only=True)
class _Request:
    """One range, and how much of it came."""

    client: SoakClient
    first: int
    count: int
    got: int = 0
    attempts: int = 0
    last: str = ""

    async def attempt(self, stub: sampling_pb2_grpc.SamplingServiceStub) -> float | None:
        """Ask for the rest.

        Returns:
            Seconds to wait before asking again, 0 when all came; None when this request is given up.
        """
        client, self.attempts = self.client, self.attempts + 1
        begun = time.monotonic()
        call = stub.Sample(self._message(), timeout=client.deadline_s)
        try:
            async with asyncio.timeout(client.deadline_s + _GRACE_S) as patience:
                async for response in call:
                    self._check(response)
            if self.got < self.count:
                client.tally.violate(f"{client.kind}: the stream ended well at {self.got} of {self.count}")
                return None
            return 0.0
        except grpc.aio.AioRpcError as error:
            return self._judge(error, time.monotonic() - begun)
        except TimeoutError:
            if not patience.expired():
                raise  # it vanishes
            client.tally.hang(f"{client.kind}: {self.count} samples open {_GRACE_S:g} s past their deadline")
            return None
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            client.tally.failed(client.kind, "CANCELLED", "by the server")  # which gRPC tells of in this way
            client.tally.violate(f"{client.kind}: CANCELLED, by the server")
            return None
        finally:
            call.cancel()

    def _message(self) -> sampling_pb2.SampleRequest:
        query: SampleQuery = {
            "count": self.count - self.got, "start_index": self.first + self.got, "seed": SEED,
            "numerics": self.client.truth.numerics, "priority": "interactive" if self.client.interactive else "bulk",
        }  # fmt: skip
        return sample_request(self.client.truth.model, query)

    def _check(self, response: sampling_pb2.SampleResponse) -> None:
        truth, tally = self.client.truth, self.client.tally
        if response.WhichOneof("kind") == "header":
            header = response.header
            if (header.seed, header.numerics) != (SEED, truth.numerics) or header.model.digest not in truth.model:
                tally.violate(f"{self.client.kind}: the header says {header}")
            return
        chunk = response.chunk
        place = chunk.start_index
        data = truth.data[place * truth.sample_bytes : (place + chunk.count) * truth.sample_bytes]
        labels = truth.labels[place : place + chunk.count]
        if place != self.first + self.got or chunk.errors:
            tally.violate(f"{self.client.kind}: chunk at {place}, {self.first + self.got} was next; {chunk.errors}")
        if chunk.data != data or list(chunk.labels) != labels:
            tally.wrong_bytes(sum(a != b for a, b in zip(chunk.data, data, strict=False)) or 1)
        self.got += chunk.count
        tally.received(chunk.count, len(chunk.data))

    def _judge(self, error: grpc.aio.AioRpcError, seconds: float) -> float | None:
        client, code = self.client, error.code()
        told = error_of(error, client.server)
        self.last = f"{code.name}: {told}"
        client.tally.failed(client.kind, code.name, str(told))
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and seconds > client.deadline_s - 0.5:
            return 0.0
        if code not in _FAULTS:
            client.tally.violate(f"{client.kind}: {code.name} after {seconds:.1f} s: {told}")
            return None
        return (told.retry_after_s or _PAUSE_S) if isinstance(told, Overloaded) else _PAUSE_S
