"""The pool of `fount serve` that loads models on demand: archives are registered with TorchServe when they are needed.

TorchServe starts with no model, so that a start takes the same time whatever the number of archives. Registering one
unpacks it and starts its workers; unregistering it ends them. Until then, a model is described by its archive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import grpc
import psutil
from google.protobuf import json_format

from fount.archive import ArchiveInfo
from fount.v1 import model_pb2
from service.domain import ModelState, ServedModel
from service.errors import NotReady, WorkerFault
from service.workers import Offer
from service.workers.torchserve.channel import Address, TorchServeChannel
from service.workers.torchserve.describe import ModelVersion, card_to_model
from service.workers.torchserve.embedded import EmbeddedPool
from service.workers.torchserve.launch import Launch, TorchServeConfig
from service.workers.torchserve.load_policy import LoadLimits, Phase, Slot, estimate_memory
from service.workers.torchserve.loading import ModelLoader

__all__ = ["OnDemandPool"]

_log = logging.getLogger(__name__)

_COLD_REASON = "its workers start with the first request"
_LASTING_S = 2.5  # of a state that two probes see
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class _Archive:
    """An archive: its file in TorchServe's model store, and how many workers it gets."""

    file: str
    workers: int


class OnDemandPool(EmbeddedPool):
    """A pool over one TorchServe process, whose models are loaded within limits when they are needed.

    Args:
        config: of the process, with `on_demand`.
        limits: how much may be loaded at once.
        refused: models that have no archive.
        required: names of models that are loaded from the start, and stay.
    """

    def __init__(
        self,
        config: TorchServeConfig,
        limits: LoadLimits,
        *,
        refused: Sequence[Offer] = (),
        required: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(config, refused=refused)
        self._limits, self._required = limits, required
        self._archives: dict[ModelVersion, _Archive] = {}
        self._cold: dict[ModelVersion, Offer] = {}  # of each model while it has no workers
        self._listed: tuple[Offer, ...] | None = None  # of the last change,
        self._listed_of: tuple[Offer, ...] = ()  # and of these offers of workers
        self._changed = asyncio.Event()
        self._on_loaded: Callable[[str, str, float], None] = lambda name, version, seconds: None
        self._on_evicted: Callable[[str, str], None] = lambda name, version: None
        self._loader = self._make_loader(())  # until the archives are known
        self._channel: TorchServeChannel | None = None

    def add(self, address: Address) -> None:
        """Add the address of the process."""
        super().add(address)
        self._channel = TorchServeChannel(address)

    async def start(self) -> None:
        """Start the process, and the workers of required models.

        Raises:
            SetupError: the process cannot be started.
        """
        await super().start()
        if launch := self.processes[0].launch:
            self._loader = self._make_loader(self._read_archives(launch))
        self._loader.schedule()
        self._phase_changed()

    async def close(self) -> None:
        """End the process and remove its folder."""
        await self._loader.close()
        if self._channel:
            await self._channel.close()
        await super().close()

    def offers(self) -> tuple[Offer, ...]:
        """Return the offers of workers, of models without workers, and of refused archives; the same until a change."""
        if self._listed is None:
            listed = {(offer.name, offer.version): offer for offer in super().offers()}
            for key, slot in self._loader.slots.items():
                if slot.phase in (Phase.COLD, Phase.STOPPING) or listed[key].model is None:
                    listed[key] = self._without_workers(slot)
            self._listed = tuple(listed.values())
        return self._listed

    def hold(self, name: str, version: str) -> None:
        """Keep a model's workers until the current task ends; see `WorkerPool.hold`."""
        self._loader.hold((name, version))

    async def load(self, name: str, version: str) -> bool:
        """Wait for a model's workers; see `WorkerPool.load`."""
        return await self._loader.load((name, version))

    def report_loads(self, loaded: Callable[[str, str, float], None], evicted: Callable[[str, str], None]) -> None:
        """Report models that are started or stopped; see `WorkerPool.report_loads`."""
        self._on_loaded, self._on_evicted = loaded, evicted

    def _make_loader(self, slots: Sequence[Slot]) -> ModelLoader:
        return ModelLoader(
            slots,
            self._limits,
            start=self._start_workers,
            stop=self._stop_workers,
            state=self._state,
            measure=self._measure,
            changed=self._phase_changed,
            loaded=lambda key, seconds: self._on_loaded(*key, seconds),
            evicted=lambda key: self._on_evicted(*key),
        )

    def _read_archives(self, launch: Launch) -> list[Slot]:
        slots = []
        for path, info in launch.archives.items():
            name, version, workers = info.name, info.version, launch.workers[info.name]
            self._archives[name, version] = _Archive(file=path.name, workers=workers)
            self._cold[name, version] = Offer(
                name=name, version=version, model=_described(info), state=ModelState.COLD, reason=_COLD_REASON
            )
            memory_bytes = estimate_memory(info.size_bytes, workers)
            slots.append(Slot(key=(name, version), memory_bytes=memory_bytes, required=name in self._required))
        return slots

    def _without_workers(self, slot: Slot) -> Offer:
        cold = self._cold[slot.key]
        if slot.retry_after_s(time.monotonic()):
            return replace(cold, state=ModelState.UNAVAILABLE, reason=slot.failure)
        if slot.required or slot.phase in (Phase.STARTING, Phase.LOADED):
            return replace(cold, state=ModelState.LOADING, reason="workers are loading")
        return cold

    def _phase_changed(self) -> None:
        self._listed = None
        self._replica_changed()

    def _replica_changed(self) -> None:
        offers = tuple(self.replicas[0].offers.values()) if self.replicas else ()
        if offers != self._listed_of:  # otherwise a call has ended, which concerns no other model
            self._listed, self._listed_of = None, offers
        self._changed.set()
        super()._replica_changed()

    async def _lost(self) -> None:
        await self._loader.pause()

    async def _moved(self, address: Address) -> None:
        if self._channel:
            await self._channel.close()
        self._channel = TorchServeChannel(address)
        self._loader.resume()

    async def _start_workers(self, key: ModelVersion) -> None:
        archive, failed_s = self._archives[key], None
        try:
            await self._torchserve.register(archive.file, archive.workers)
        except grpc.aio.AioRpcError as error:
            await asyncio.sleep(_LASTING_S)  # if TorchServe has ended, its supervisor cancels the start meanwhile
            raise NotReady(f"TorchServe does not register its archive: {error.details()}") from error
        self.replicas[0].probe_soon()
        while (state := self._state(key))[0] is not ModelState.READY:
            failed_s = None if state[0] is not ModelState.UNAVAILABLE else failed_s or time.monotonic()
            if failed_s and time.monotonic() - failed_s > _LASTING_S:
                raise NotReady(state[1])
            await self._wait_for_change()
        self._cold[key] = replace(self._cold[key], model=self.replicas[0].offers[key].model)

    async def _stop_workers(self, key: ModelVersion) -> None:
        while True:
            try:
                await self._torchserve.unregister(*key)
                break
            except grpc.aio.AioRpcError as error:
                _log.warning("TorchServe does not unregister %s %s: %s", *key, error.details())
                await asyncio.sleep(_LASTING_S)
        self.replicas[0].probe_soon()
        while key in self.replicas[0].offers:  # what a probe finds afterwards is of a later start
            await self._wait_for_change()
        await self.processes[0].remove_unpacked(*key)

    @property
    def _torchserve(self) -> TorchServeChannel:
        if self._channel is None:
            raise NotReady("TorchServe is starting")
        return self._channel

    def _state(self, key: ModelVersion) -> tuple[ModelState, str]:
        offer = self.replicas[0].offers.get(key)
        return (offer.state, offer.reason) if offer else (ModelState.LOADING, "")

    async def _measure(self, key: ModelVersion) -> int:
        """Return the resident memory of all workers of a model, those still starting included; 0: unknown."""
        name, version = key
        try:
            pids = (await self._torchserve.ready_pids(name))[version]
            measured = [psutil.Process(pid).memory_info().rss for pid in pids]
        except (grpc.aio.AioRpcError, psutil.Error, ValueError, KeyError, TypeError):
            return 0
        return sum(measured) * self._archives[key].workers // max(1, len(measured))

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self._changed.wait()


def _described(info: ArchiveInfo) -> ServedModel | None:
    """Read an archive's description of its model; None for an older archive: its workers describe it, once loaded."""
    if not info.description:
        return None
    try:
        return card_to_model(json_format.Parse(info.description, model_pb2.Model(), ignore_unknown_fields=True))
    except (json_format.ParseError, WorkerFault, ValueError, RecursionError) as error:
        _log.warning("the description of %s %s is not used: %s", info.name, info.version, error)
        return None
