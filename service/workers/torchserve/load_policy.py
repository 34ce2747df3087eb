"""The policy by which models are loaded on demand: which to stop for another, and which to keep from new uses.

A version that is held is never stopped. Of the others, the one used least recently goes first. Where all are held, one
that is expected to become free admits no new uses until then, so that a model with many clients does not keep the
others out. `loading` carries this out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from service.workers.torchserve.describe import ModelVersion

__all__ = [
    "RETRY_S", "LoadLimits", "Phase", "Slot", "Task", "choose_closing", "choose_evictions",
    "estimate_memory",
]  # fmt: skip

RETRY_S = 30.0
"""After so long, a version whose workers did not start is tried again."""

_STAY_S = 2.0  # at least so long a version stays loaded, so that several requests use each start
_SHORT_USE_S = 1.0  # of uses that are younger, or younger than the wait for them, the end is expected soon
_WORKER_BYTES = 256 << 20  # of a worker process, without its model


def estimate_memory(archive_bytes: int, workers: int) -> int:
    """Estimate the memory of a model's workers from the size of its archive, rather too low, in bytes."""
    return workers * (_WORKER_BYTES + archive_bytes)


@dataclass(frozen=True, kw_only=True)
class LoadLimits:
    """How much may be loaded at once.

    Attributes:
        models: number of model versions; None: any.
        memory_bytes: resident memory of all worker processes; None: any.
        starting: how many versions start at the same time.
    """

    models: int | None = None
    memory_bytes: int | None = None
    starting: int = 1

    def allow(self, models: int, memory_bytes: int) -> bool:
        """Whether so many versions of so many bytes may be loaded; a single one always may."""
        within_models = self.models is None or models <= self.models
        within_memory = self.memory_bytes is None or memory_bytes <= self.memory_bytes
        return models <= 1 or (within_models and within_memory)


class Phase(Enum):
    """Where a model version is between cold and loaded."""

    COLD = "cold"
    STARTING = "starting"
    LOADED = "loaded"
    STOPPING = "stopping"


Task = asyncio.Task[Any]


@dataclass(kw_only=True, eq=False)
class Slot:
    """One model version.

    Attributes:
        key: name and version.
        memory_bytes: of its workers: estimated, then measured.
        required: it is loaded from the start, and never stopped.
        uses: the tasks that hold it, and since when (`time.monotonic()`).
        waiting: the tasks that wait for it.
        waits_since_s: when the first of these began.
        exceeds: it is started although there is no room, for a task that holds another version.
        used_s, loaded_s: when it was last used, and loaded.
        failure, failed_s: why its last start failed, and when; empty: it did not.
    """

    key: ModelVersion
    memory_bytes: int
    required: bool = False
    phase: Phase = Phase.COLD
    uses: dict[Task, float] = field(default_factory=dict)
    waiting: dict[Task, asyncio.Future[None]] = field(default_factory=dict)
    waits_since_s: float = 0.0
    exceeds: bool = False
    used_s: float = 0.0
    loaded_s: float = 0.0
    failure: str = ""
    failed_s: float = 0.0

    @property
    def name(self) -> str:
        """Name and version as text."""
        return " ".join(self.key)

    def is_wanted(self, now_s: float) -> bool:
        """Whether it should be started."""
        needed = self.required or self.waiting or self.uses  # held without workers: those it had are gone
        return self.phase is Phase.COLD and bool(needed) and not self.retry_after_s(now_s)

    def may_stop(self, now_s: float) -> bool:
        """Whether it may be stopped, but for uses."""
        return self.phase is Phase.LOADED and not self.required and now_s - self.loaded_s >= _STAY_S

    def retry_after_s(self, now_s: float) -> float:
        """Return in how many seconds a version that failed is tried again; 0: now."""
        return max(0.0, self.failed_s + RETRY_S - now_s) if self.failure else 0.0


def choose_evictions(
    slots: Collection[Slot], limits: LoadLimits, now_s: float, incoming: Slot | None = None
) -> tuple[list[Slot], bool]:
    """Choose the versions to stop, least recently used first, so that the others and `incoming` are within the limits.

    Returns:
        The versions, as few as possible; and whether the limits are kept once they, and those that already stop, are
        gone. When `incoming` does not fit even then, none is chosen for it.
    """
    staying = [each for each in slots if each.phase in (Phase.STARTING, Phase.LOADED)]
    models = len(staying) + (incoming is not None)
    memory_bytes = sum(each.memory_bytes for each in staying) + (incoming.memory_bytes if incoming else 0)
    free = sorted((each for each in staying if not each.uses and each.may_stop(now_s)), key=lambda each: each.used_s)
    chosen: list[Slot] = []
    for each in free:
        if limits.allow(models, memory_bytes):
            break
        chosen.append(each)
        models, memory_bytes = models - 1, memory_bytes - each.memory_bytes
    fits = limits.allow(models, memory_bytes)
    return (chosen if fits or incoming is None else []), fits


def choose_closing(slots: Collection[Slot], now_s: float, waited_s: float) -> Slot | None:
    """Choose a version that admits no new uses for now, for one that has waited so long: the one loaded for longest.

    Its uses have to be shorter than the wait, so that a long stream does not keep its own model from others.
    """
    busy = [each for each in slots if each.uses and each.may_stop(now_s)]
    short = [each for each in busy if now_s - min(each.uses.values()) < max(_SHORT_USE_S, waited_s)]
    return min(short, key=lambda each: each.loaded_s, default=None)
