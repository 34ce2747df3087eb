"""Load models on demand: start the workers of a model version when it is needed, and stop them for another one.

A version without workers is cold. The first task that needs it starts them, and waits; a task that has it holds it
until it ends. `load_policy` decides, `ModelLoader` carries it out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable

from service.domain import ModelState
from service.errors import NotLoaded, NotReady
from service.workers.torchserve.describe import ModelVersion
from service.workers.torchserve.load_policy import (
    RETRY_S,
    LoadLimits,
    Phase,
    Slot,
    Task,
    choose_closing,
    choose_evictions,
)

__all__ = ["ModelLoader"]

_log = logging.getLogger(__name__)

_STUCK_S = 60.0  # after so long without a start or a stop, waiting tasks are refused
_POLL_S = 0.1  # while a version waits for others to become free


class ModelLoader:
    """The model versions of a pool, started and stopped within limits.

    Args:
        slots: all versions.
        limits: how much may be loaded.
        start: starts a version's workers, and returns when one is ready. Raises NotReady with the reason.
        stop: ends a version's workers, and returns when nothing of them is left.
        state: the state of a version's workers, and why it is not READY.
        measure: returns the memory of a version's workers, in bytes.
        changed: called when a phase has changed.
        loaded: called with the seconds that a start took.
        evicted: called when a version was stopped to make room.
    """

    def __init__(
        self,
        slots: Iterable[Slot],
        limits: LoadLimits,
        *,
        start: Callable[[ModelVersion], Awaitable[None]],
        stop: Callable[[ModelVersion], Awaitable[None]],
        state: Callable[[ModelVersion], tuple[ModelState, str]],
        measure: Callable[[ModelVersion], Awaitable[int]],
        changed: Callable[[], None],
        loaded: Callable[[ModelVersion, float], None],
        evicted: Callable[[ModelVersion], None],
    ) -> None:
        self.slots = {each.key: each for each in slots}
        self._limits = limits
        self._start, self._stop, self._state, self._measure = start, stop, state, measure
        self._changed, self._loaded, self._evicted = changed, loaded, evicted
        self._closing: Slot | None = None
        self._contended = False  # something waits, or too much is loaded
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._paused = False
        self._moved_s = time.monotonic()  # when something was last started or stopped

    def hold(self, key: ModelVersion) -> None:
        """Keep a loaded version from being stopped until the current task ends; other keys are ignored.

        Raises:
            NotLoaded: it is not loaded, or admits no new uses now.
        """
        slot, task = self.slots.get(key), asyncio.current_task()
        if slot is None or task is None or task in slot.uses:
            return
        if slot.phase is not Phase.LOADED or slot is self._closing:
            raise self._not_loaded(slot)
        self._use(slot, task)

    async def load(self, key: ModelVersion) -> bool:
        """Wait until a version is loaded, and hold it until the current task ends; False: it is not one of these.

        Raises:
            NotLoaded: its workers did not start.
        """
        slot, task = self.slots.get(key), asyncio.current_task()
        if slot is None or task is None:
            return False
        if slot.retry_after_s(time.monotonic()):
            raise self._not_loaded(slot)
        if not slot.waiting:
            slot.waits_since_s = time.monotonic()
        admitted = slot.waiting[task] = asyncio.get_running_loop().create_future()
        slot.exceeds = slot.exceeds or any(task in each.uses for each in self.slots.values())
        self.schedule()
        try:
            await admitted
        finally:
            slot.waiting.pop(task, None)
            slot.exceeds = slot.exceeds and bool(slot.waiting)
        return True

    def schedule(self) -> None:
        """Admit, start and stop what can be now; called after everything that may have changed it."""
        if self._paused:
            return
        now_s = time.monotonic()
        self._closing = None
        wanted = sorted(
            (each for each in self.slots.values() if each.is_wanted(now_s)),
            key=lambda each: (not each.required, not each.exceeds, each.waits_since_s),
        )
        for slot in wanted:
            if not self._make_room(slot, now_s):
                break
            self._run(slot, Phase.STARTING, self._load(slot))
        self._refuse_stuck(wanted, now_s)
        surplus, within = choose_evictions(self.slots.values(), self._limits, now_s)
        for each in surplus:
            self._evict(each)
        for each in self.slots.values():
            if each.waiting and each.phase is Phase.LOADED and each is not self._closing:
                self._admit(each)
        waits = any(each.waiting for each in self.slots.values())
        self._contended = waits or not within
        if self._contended and not self._timer:
            self._timer = asyncio.get_running_loop().call_later(_POLL_S, self._poll)

    async def pause(self) -> None:
        """Forget all workers, which are gone, and start none until `resume`."""
        self._paused = True
        await self._cancel()
        for slot in self.slots.values():
            slot.phase, slot.failure = Phase.COLD, ""
        self._changed()

    def resume(self) -> None:
        """Start what is wanted, the versions that are held among it."""
        self._paused = False
        self.schedule()

    async def close(self) -> None:
        """End the starts and stops in progress."""
        self._paused = True
        if self._timer:
            self._timer.cancel()
        await self._cancel()

    async def _cancel(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self, slot: Slot, now_s: float) -> bool:
        """Return whether a version can start now; if not, stop others for it, or close one to new uses."""
        phases = [each.phase for each in self.slots.values()]
        if phases.count(Phase.STARTING) >= self._limits.starting:
            return False
        resident = [each for each in self.slots.values() if each.phase is not Phase.COLD]
        if self._limits.allow(len(resident) + 1, slot.memory_bytes + sum(each.memory_bytes for each in resident)):
            return True
        victims, fits = choose_evictions(self.slots.values(), self._limits, now_s, slot)
        for each in victims:
            self._evict(each)
        if fits:
            return False  # when they have stopped
        if slot.required or slot.exceeds:
            return True
        self._closing = choose_closing(self.slots.values(), now_s, now_s - slot.waits_since_s)
        return False

    def _refuse_stuck(self, wanted: Collection[Slot], now_s: float) -> None:
        for slot in wanted:
            if slot.phase is Phase.COLD and now_s - max(slot.waits_since_s, self._moved_s) > _STUCK_S:
                message = f"{slot.name} is not loaded: all that may be loaded at once are in use"
                self._refuse(slot, NotLoaded(message, model=slot.key))

    def _run(self, slot: Slot, phase: Phase, work: Coroutine[object, object, None]) -> None:
        slot.phase, self._moved_s = phase, time.monotonic()
        task = self._tasks[slot] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._ended(slot, task))
        self._changed()

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        if self._tasks.get(slot) is task:
            del self._tasks[slot]
        if not task.cancelled() and (error := task.exception()):
            _log.error("starting or stopping %s failed", slot.name, exc_info=error)
            self._fail(slot, "it could not be started or stopped; the gateway's log has the reason")
        self._moved_s = time.monotonic()
        self._changed()
        self.schedule()

    async def _load(self, slot: Slot) -> None:
        began_s, slot.exceeds = time.monotonic(), False
        try:
            await self._start(slot.key)
            slot.memory_bytes = await self._measure(slot.key) or slot.memory_bytes
        except NotReady as error:
            _log.warning("%s did not start: %s", slot.name, error, extra={"action": "model_not_loaded"})
            slot.phase = Phase.STOPPING
            await self._stop(slot.key)
            self._fail(slot, str(error))
        else:
            now_s = slot.used_s = slot.loaded_s = time.monotonic()
            slot.phase, slot.failure = Phase.LOADED, ""
            _log.info("%s was loaded in %.1f s", slot.name, now_s - began_s, extra={"action": "model_loaded"})
            self._loaded(slot.key, now_s - began_s)
            self._admit(slot)

    def _evict(self, slot: Slot) -> None:
        async def stop() -> None:
            await self._stop(slot.key)
            slot.phase = Phase.COLD
            _log.info("%s was stopped to make room", slot.name, extra={"action": "model_evicted"})
            self._evicted(slot.key)

        self._run(slot, Phase.STOPPING, stop())

    def _fail(self, slot: Slot, reason: str) -> None:
        slot.phase, slot.failure, slot.failed_s = Phase.COLD, reason, time.monotonic()
        self._refuse(slot, self._not_loaded(slot))
        asyncio.get_running_loop().call_later(RETRY_S, self._changed)

    def _admit(self, slot: Slot) -> None:
        """Let the waiting tasks use a loaded version, unless its workers are not ready after all."""
        state, reason = self._state(slot.key)
        if state is ModelState.UNAVAILABLE:
            self._refuse(slot, NotReady(f"{slot.name} is not ready: {reason}"))
        elif state is ModelState.READY:
            for task, admitted in slot.waiting.items():
                if not admitted.done():
                    self._use(slot, task)
                    admitted.set_result(None)

    def _refuse(self, slot: Slot, error: NotReady) -> None:
        for admitted in slot.waiting.values():
            if not admitted.done():
                admitted.set_exception(error)

    def _use(self, slot: Slot, task: Task) -> None:
        slot.used_s = slot.uses[task] = time.monotonic()
        task.add_done_callback(lambda _: self._release(slot, task))

    def _release(self, slot: Slot, task: Task) -> None:
        slot.uses.pop(task, None)
        slot.used_s = time.monotonic()
        if self._contended and not slot.uses:
            self.schedule()

    def _poll(self) -> None:
        self._timer = None
        self.schedule()

    def _not_loaded(self, slot: Slot) -> NotLoaded:
        retry_s = slot.retry_after_s(time.monotonic())
        reason = slot.failure if retry_s else "its workers are not started"
        return NotLoaded(f"{slot.name} is not loaded: {reason}", model=slot.key, retry_after_s=retry_s or 1.0)
