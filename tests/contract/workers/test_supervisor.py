"""Restarts of a TorchServe that ended or does not answer, with pauses, and the new address in its pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from unittest.mock import AsyncMock

import pytest

from service.calls import Reply
from service.domain import ModelState
from service.errors import SetupError, WorkerLost
from service.workers.torchserve import embedded
from service.workers.torchserve.channel import Address
from service.workers.torchserve.embedded import Supervisor
from service.workers.torchserve.pool import TorchServePool
from tests.contract.fake_torchserve import FakeTorchServe, ready_target, running, sample_call
from tests.waiting import until


@dataclass
class FakeProcess:
    """A process that serves one fake after another; an error in their place prevents its start."""

    fakes: list[FakeTorchServe | Exception]
    is_running: bool = False
    happened: list[str] = field(default_factory=list)
    _serving: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> Address:
        self.happened.append("start")
        fake = self.fakes.pop(0)
        if isinstance(fake, Exception):
            raise fake
        address = await self._serving.enter_async_context(running(fake))
        self.is_running = True
        return address

    async def stop(self, grace_s: float = 10) -> None:
        self.happened.append("stop")
        await self.die()

    async def die(self) -> None:
        self.is_running = False
        serving, self._serving = self._serving, AsyncExitStack()  # the next start may begin meanwhile
        await serving.aclose()

    def log_tail(self) -> str:
        return "out of memory"


@dataclass
class Supervised:
    """A pool over one fake process that is supervised."""

    process: FakeProcess
    pool: TorchServePool

    async def sample(self) -> Reply:
        return await self.pool.call(sample_call(ready_target(self.pool)), timeout_s=5)

    async def ready(self) -> None:
        await until(lambda: any(offer.target for offer in self.pool.offers()))


@asynccontextmanager
async def supervised(*fakes: FakeTorchServe | Exception) -> AsyncIterator[Supervised]:
    process = FakeProcess(list(fakes))
    pool = TorchServePool([await process.start()])
    await pool.start()
    task = asyncio.get_running_loop().create_task(
        Supervisor(process, pool.replicas[0], lost=AsyncMock(), moved=AsyncMock()).run()
    )
    each = Supervised(process, pool)
    try:
        await each.ready()
        process.happened.clear()
        yield each
    finally:
        task.cancel()
        await asyncio.wait([task])
        await pool.close()
        await process.die()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the failures before each start, without the pauses."""
    seen: list[int] = []
    monkeypatch.setattr(embedded, "_POLL_S", 0.01)
    monkeypatch.setattr(embedded, "_pause_s", lambda failures: seen.append(failures) or 0.0)
    return seen


async def test_a_torchserve_that_ended_is_restarted_and_called() -> None:
    first, second = FakeTorchServe(), FakeTorchServe(pids=[99])
    async with supervised(first, second) as stack:
        await stack.process.die()
        await until(lambda: stack.process.happened == ["stop", "start"])
        await stack.ready()
        await stack.sample()
        assert (first.predictions, second.predictions) == (0, 1)


async def test_its_models_are_loading_until_it_has_restarted(caplog: pytest.LogCaptureFixture) -> None:
    second = FakeTorchServe(pids=[])
    async with supervised(FakeTorchServe(), second) as stack:
        seen: list[tuple[ModelState, str, bool]] = []
        stack.pool.watch(lambda: seen.extend((o.state, o.reason, o.model is not None) for o in stack.pool.offers()))
        await stack.process.die()
        await until(lambda: stack.process.happened == ["stop", "start"])
        second.pids = [5]
        await stack.ready()
        loading = (ModelState.LOADING, "TorchServe was restarted; workers are loading", True)
        assert seen[-1] == (ModelState.READY, "", True)
        assert loading in seen
        assert stack.pool.is_discovered()
    assert "out of memory" in caplog.text


async def test_its_offers_never_disappear() -> None:
    async with supervised(FakeTorchServe(), FakeTorchServe()) as stack:
        counts: set[int] = set()
        await stack.process.die()
        async with asyncio.timeout(5):
            while stack.process.happened != ["stop", "start"] or not any(o.target for o in stack.pool.offers()):
                counts.add(len(stack.pool.offers()))
                await asyncio.sleep(0)
        assert counts == {1}


async def test_calls_in_flight_are_lost() -> None:
    stuck = FakeTorchServe(stalled=asyncio.Event())
    async with supervised(stuck, FakeTorchServe()) as stack:
        waiting = asyncio.ensure_future(stack.sample())
        await until(lambda: stuck.running == 1)
        stack.process.is_running = False
        with pytest.raises(WorkerLost):
            await waiting


async def test_a_failed_start_is_repeated_after_increasing_pauses(pauses: list[int]) -> None:
    fakes = [FakeTorchServe(), SetupError("no memory"), OSError("no disk"), FakeTorchServe()]
    async with supervised(*fakes) as stack:
        await stack.process.die()
        await until(lambda: stack.process.happened.count("start") == 3)
        await stack.ready()
        assert pauses == [0, 1, 2]


async def test_a_torchserve_that_ran_for_long_is_restarted_without_a_pause(pauses: list[int], monkeypatch) -> None:
    async with supervised(FakeTorchServe(), FakeTorchServe(), FakeTorchServe(), FakeTorchServe()) as stack:
        for healthy_s in (60, 60, 0):
            monkeypatch.setattr(embedded, "_HEALTHY_S", healthy_s)
            starts = stack.process.happened.count("start")
            await stack.process.die()
            await until(lambda before=starts: stack.process.happened.count("start") > before)
            await stack.ready()
        assert pauses == [0, 1, 0]


async def test_a_torchserve_whose_management_does_not_answer_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_UNRESPONSIVE_S", 0.8)
    monkeypatch.setattr("service.workers.torchserve.channel._MANAGEMENT_TIMEOUT_S", 0.1)
    monkeypatch.setattr("service.workers.torchserve.replica._SLOW_PROBE_S", 0.05)
    first, second = FakeTorchServe(), FakeTorchServe()
    async with supervised(first, second) as stack:
        await asyncio.sleep(0.4)
        assert stack.process.happened == []
        first.unresponsive = True
        await until(lambda: stack.process.happened == ["stop", "start"])
        first.unresponsive = False
        await stack.ready()


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (5000, 30)])
def test_pauses_double_up_to_half_a_minute(failures: int, pause_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert embedded._pause_s(failures) == pause_s
