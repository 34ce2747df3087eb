"""A TorchServe that ends or falls silent is started again, with pauses, and its pool told where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from service.domain import Call, Dtype, ModelState, Operation, Parameters, RangeItem, Reply
from service.errors import SetupError, WorkerLost
from service.workers.torchserve import supervisor
from service.workers.torchserve.channel import Address
from service.workers.torchserve.pool import TorchServePool
from service.workers.torchserve.supervisor import Supervisor
from tests.contract.fake_torchserve import FakeTorchServe, running


async def until(condition, timeout_s: float = 5) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@dataclass
class FakeProcess:
    """A process that serves each of the fakes in turn; an error in their place is why it does not start."""

    lives: list[FakeTorchServe | Exception]
    is_running: bool = False
    happened: list[str] = field(default_factory=list)
    _serving: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> Address:
        self.happened.append("start")
        life = self.lives.pop(0)
        if isinstance(life, Exception):
            raise life
        address = await self._serving.enter_async_context(running(life))
        self.is_running = True
        return address

    async def stop(self, patience_s: float = 10) -> None:
        self.happened.append("stop")
        await self.die()

    async def die(self) -> None:
        self.is_running = False
        serving, self._serving = self._serving, AsyncExitStack()  # the next life may begin meanwhile
        await serving.aclose()

    def log_tail(self) -> str:
        return "the JVM had enough"


@dataclass
class Supervised:
    """A pool over one fake process that is kept running."""

    process: FakeProcess
    pool: TorchServePool

    async def sample(self) -> Reply:
        target = next(offer.target for offer in self.pool.offers() if offer.target)
        item = RangeItem(seed=1, start_index=0, count=1, labels=None, dtype=Dtype.UINT8)
        call = Call(target=target, operation=Operation.SAMPLE, parameters=Parameters(), items=(item,))
        return await self.pool.call(call, timeout_s=5)

    async def ready(self) -> None:
        await until(lambda: any(offer.target for offer in self.pool.offers()))


@asynccontextmanager
async def supervised(*lives: FakeTorchServe | Exception) -> AsyncIterator[Supervised]:
    process = FakeProcess(list(lives))
    pool = TorchServePool([await process.start()])
    await pool.start()
    guard = asyncio.get_running_loop().create_task(Supervisor(process, pool, 0).run())
    each = Supervised(process, pool)
    try:
        await each.ready()
        process.happened.clear()
        yield each
    finally:
        guard.cancel()
        await asyncio.wait([guard])
        await pool.close()
        await process.die()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The failures before each start; the pauses themselves are left out."""
    seen: list[int] = []
    monkeypatch.setattr(supervisor, "_LOOK_S", 0.01)
    monkeypatch.setattr(supervisor, "_pause_s", lambda failures: seen.append(failures) or 0.0)
    return seen


async def test_a_torchserve_that_ended_is_started_again_and_called() -> None:
    first, second = FakeTorchServe(), FakeTorchServe(pids=[99])
    async with supervised(first, second) as stack:
        await stack.process.die()
        await until(lambda: stack.process.happened == ["stop", "start"])
        await stack.ready()
        await stack.sample()
        assert (first.predictions, second.predictions) == (0, 1)


async def test_what_it_served_is_loading_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
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
    assert "the JVM had enough" in caplog.text


async def test_its_offers_never_vanish() -> None:
    async with supervised(FakeTorchServe(), FakeTorchServe()) as stack:
        counts: set[int] = set()
        await stack.process.die()
        async with asyncio.timeout(5):
            while stack.process.happened != ["stop", "start"] or not any(o.target for o in stack.pool.offers()):
                counts.add(len(stack.pool.offers()))
                await asyncio.sleep(0)
        assert counts == {1}


async def test_calls_in_flight_are_lost_and_not_left_hanging() -> None:
    stuck = FakeTorchServe(stalled=asyncio.Event())
    async with supervised(stuck, FakeTorchServe()) as stack:
        waiting = asyncio.ensure_future(stack.sample())
        await until(lambda: stuck.running == 1)
        stack.process.is_running = False
        with pytest.raises(WorkerLost):
            await waiting


async def test_one_that_cannot_start_is_tried_again_after_longer_and_longer_pauses(pauses: list[int]) -> None:
    lives = [FakeTorchServe(), SetupError("no room"), OSError("no disk"), FakeTorchServe()]
    async with supervised(*lives) as stack:
        await stack.process.die()
        await until(lambda: stack.process.happened.count("start") == 3)
        await stack.ready()
        assert pauses == [0, 1, 2]


async def test_one_that_lived_long_is_started_again_at_once(pauses: list[int], monkeypatch) -> None:
    async with supervised(FakeTorchServe(), FakeTorchServe(), FakeTorchServe(), FakeTorchServe()) as stack:
        for healthy_s in (60, 60, 0):
            monkeypatch.setattr(supervisor, "_HEALTHY_S", healthy_s)
            starts = stack.process.happened.count("start")
            await stack.process.die()
            await until(lambda before=starts: stack.process.happened.count("start") > before)
            await stack.ready()
        assert pauses == [0, 1, 0]


async def test_one_whose_management_is_silent_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_SILENT_S", 0.8)
    monkeypatch.setattr("service.workers.torchserve.channel._PROBE_S", 0.1)
    monkeypatch.setattr("service.workers.torchserve.replica._PROBE_SLOW_S", 0.05)
    first, second = FakeTorchServe(), FakeTorchServe()
    async with supervised(first, second) as stack:
        await asyncio.sleep(0.4)
        assert stack.process.happened == []
        first.silent = True
        await until(lambda: stack.process.happened == ["stop", "start"])
        first.silent = False
        await stack.ready()


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (5000, 30)])
def test_pauses_double_up_to_half_a_minute(failures: int, pause_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert supervisor._pause_s(failures) == pause_s
