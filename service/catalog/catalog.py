"""Resolve model references against the current offers of the worker pool, and match labels with classes.

Its only state is the last grouping of these offers, which saves grouping them for every request.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset
from service.domain import ModelState, Operation, ServedModel, Target
from service.errors import InvalidRequest, Loading, NotLoaded, NotReady, Retired, TooLate, UnknownName, Violation
from service.workers import Offer, WorkerPool

__all__ = ["ROLES", "TRANSFORMER", "Catalog", "Entry", "PinnedModel", "class_labels", "not_ready"]

ROLES = {
    "generator": (Operation.SAMPLE,),
    "translator": (Operation.TRANSLATE,),
    "autoencoder": (Operation.ENCODE, Operation.DECODE),
    "classifier": (Operation.CLASSIFY,),
    "verifier": (Operation.CLASSIFY,),
    "transformer": (Operation.TRANSFORM,),
}
"""The roles of models in a plan, and what each does."""

TRANSFORMER = "transforms"
"""The built-in model that transforms images; without it, any other model with the operation serves."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One version of one model, with all offers of it.

    Attributes:
        name, version: of the model.
        is_default: whether an empty version means this one.
        offers: one or more, of any state.
    """

    name: str
    version: str
    is_default: bool
    offers: tuple[Offer, ...]

    @cached_property
    def ready(self) -> tuple[Offer, ...]:
        """The offers with ready workers."""
        return tuple(offer for offer in self.offers if offer.target)

    @property
    def state(self) -> ModelState:
        """The best state of the offers."""
        states = {offer.state for offer in self.offers}
        order = (ModelState.READY, ModelState.LOADING, ModelState.COLD, ModelState.UNAVAILABLE)
        return next(state for state in order if state in states)

    @property
    def reason(self) -> str:
        """Why it is not ready; empty when it is."""
        if self.ready:
            return ""
        return next((offer.reason for offer in self.offers if offer.reason), "workers are loading")

    @cached_property
    def model(self) -> ServedModel | None:
        """What it accepts; None until a worker or its archive described it."""
        described = [offer.model for offer in (*self.ready, *self.offers) if offer.model]
        return described[0] if described else None

    @cached_property
    def numerics(self) -> tuple[str, ...]:
        """The numerics ids with a ready worker, those with most workers first."""
        workers = Counter[str]()
        for offer in self.ready:
            workers[offer.numerics] += offer.workers
        return tuple(sorted(workers, key=lambda each: (-workers[each], each)))


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """A model in a role of a plan, with the workers that must run it.

    Attributes:
        role: one of `ROLES`.
        target: its workers, all of the pinned numerics.
        model: what it accepts.
    """

    role: str
    target: Target
    model: ServedModel


class Catalog:
    """The served models.

    Args:
        pool: source of the offers.
        default_versions: model name: the version that an empty version means; otherwise the newest.
        required_models: models that must be ready before the gateway is.
    """

    def __init__(
        self,
        pool: WorkerPool,
        *,
        default_versions: Mapping[str, str] | None = None,
        required_models: frozenset[str] = frozenset(),
    ) -> None:
        self._pool = pool
        self._default_versions = dict(default_versions or {})
        self._required = required_models
        self._grouped: tuple[tuple[Offer, ...], tuple[Entry, ...]] = ((), ())

    def entries(self) -> tuple[Entry, ...]:
        """Return every served version, by name, newest version first."""
        offers = self._pool.offers()
        known, entries = self._grouped
        if offers != known:
            entries = self._group(offers)
            self._grouped = offers, entries
        return entries

    def _group(self, offers: tuple[Offer, ...]) -> tuple[Entry, ...]:
        grouped: dict[str, dict[str, list[Offer]]] = {}
        for offer in offers:
            grouped.setdefault(offer.name, {}).setdefault(offer.version, []).append(offer)
        return tuple(
            Entry(name=name, version=version, is_default=version == self._default(name, versions), offers=tuple(each))
            for name, versions in sorted(grouped.items())
            for version, each in sorted(versions.items(), key=lambda item: _version_order(item[0]), reverse=True)
        )

    def find(self, name: str, version: str = "", digest: str = "") -> Entry:
        """Resolve a reference.

        Raises:
            InvalidRequest: no name, or a malformed digest.
            UnknownName: the name or the version is not served.
            Retired: the digest is not served under that name and version.
        """
        wrong = (
            []
            if name
            else [Violation(field="model.name", description="name a model; `fount models` (ListModels) lists them")]
        )
        if digest and not _DIGEST.fullmatch(digest):
            wrong.append(Violation(field="model.digest", description='is not "sha256:" and 64 hexadecimal digits'))
        if wrong:
            raise InvalidRequest(tuple(wrong))
        versions = [entry for entry in self.entries() if entry.name == name]
        if not versions:
            if not self._pool.is_discovered():
                raise Loading("not every worker has described its model yet; try again in a moment")
            raise UnknownName((self._unknown("model.name", name, sorted({each.name for each in self.entries()})),))
        chosen = self._choose(versions, version, digest)
        if digest and not any(offer.model and offer.model.key.digest == digest for offer in chosen.offers):
            if chosen.model is None:
                raise not_ready(chosen)
            raise Retired(f"{name} {chosen.version} with digest {digest} is not served; "
                          f"{chosen.model.key.digest} is")  # fmt: skip
        return chosen

    def choose(
        self, entry: Entry, operation: Operation, *, digest: str = "", numerics: str = ""
    ) -> tuple[Target, ServedModel]:
        """Choose the workers for a stream: those of the pinned numerics, or of the numerics with most workers.

        Workers that are started on demand are kept until the current task ends.

        Returns:
            The target, and what the workers of that very target accept.

        Raises:
            NotLoaded: its workers are not started, or are loading; `load` waits for them.
            NotReady: no worker of the model is ready.
            Retired: the model lacks the operation, or no ready worker has the pinned numerics.
        """
        candidates = [(offer.target, offer.model) for offer in entry.ready if offer.target and offer.model]
        if digest:
            candidates = [(target, model) for target, model in candidates if target.model.digest == digest]
        if entry.model is not None and operation not in entry.model.operations:
            operations = ", ".join(sorted(each.name for each in entry.model.operations))
            raise Retired(f"{entry.name} {entry.version} lacks the operation {operation.name}; it has {operations}")
        if not candidates:
            raise not_ready(entry)
        self._pool.hold(entry.name, entry.version)
        for wanted in (numerics,) if numerics else entry.numerics:
            for target, model in candidates:
                if target.numerics == wanted:
                    return target, model
        raise Retired(f"no ready worker of {entry.name} {entry.version} has the numerics {numerics[:80]!r}; "
                      f"there are {', '.join(entry.numerics)}")  # fmt: skip

    async def load(self, error: NotLoaded, within_s: float | None) -> None:
        """Wait for the workers that were missing, if the pool starts them on demand.

        Args:
            error: what `choose` raised.
            within_s: how long to wait; None: until they have started, or have not.

        Raises:
            NotReady: they did not start; Loading where the pool starts none itself.
            TooLate: they have not started in time.
        """
        name, version = error.model
        try:
            async with asyncio.timeout(within_s):
                if not await self._pool.load(name, version):
                    raise Loading(str(error)) from error
        except TimeoutError as timeout:
            raise TooLate(f"{name} {version} was not loaded when the deadline passed; allow more time") from timeout

    def transformer(self) -> Entry | None:
        """Return the model that transforms images where a request names none; None: no served model can."""
        able = [
            entry
            for entry in self.entries()
            if entry.is_default and entry.model and Operation.TRANSFORM in entry.model.operations
        ]
        return min(able, key=lambda each: (each.name != TRANSFORMER, each.name), default=None)

    def is_ready(self) -> bool:
        """Return whether the gateway should receive calls: every required model is ready, and one is ready or cold."""
        defaults = [entry for entry in self.entries() if entry.is_default]
        usable = any(entry.ready or entry.state is ModelState.COLD for entry in defaults)
        return usable and self._required <= {entry.name for entry in defaults if entry.ready}

    def _choose(self, versions: list[Entry], version: str, digest: str) -> Entry:
        if version:
            for entry in versions:
                if entry.version == version:
                    return entry
            served = [entry.version for entry in versions]
            raise UnknownName((self._unknown("model.version", version, served),))
        if digest:
            for entry in versions:
                if any(offer.model and offer.model.key.digest == digest for offer in entry.offers):
                    return entry
        configured = self._default_versions.get(versions[0].name)
        for entry in versions:
            if entry.is_default:
                return entry
        raise NotReady(f"{versions[0].name} {configured}, the version an empty one means here, has no worker")

    def _default(self, name: str, versions: Mapping[str, list[Offer]]) -> str:
        """Return the configured version, or else the newest that is not broken, which must not hide a good one."""
        if name in self._default_versions:
            return self._default_versions[name]
        usable = [
            version
            for version, offers in versions.items()
            if any(offer.state is not ModelState.UNAVAILABLE for offer in offers)
        ]
        return max(usable or versions, key=_version_order)

    @staticmethod
    def _unknown(field: str, value: str, served: list[str]) -> Violation:
        near = difflib.get_close_matches(value, served, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = ", ".join(served) if served else "nothing"
        return Violation(
            field=field, description=f"{value[:80]!r} is not served; {hint}served: {listed[:400]}", unknown=True
        )


def not_ready(entry: Entry) -> NotReady:
    """Return the error of a request for an entry without ready workers; NotLoaded when they may come."""
    message = f"{entry.name} {entry.version} is not ready: {entry.reason or 'no worker has that digest'}"
    if entry.state in (ModelState.COLD, ModelState.LOADING):
        return NotLoaded(message, model=(entry.name, entry.version))
    return NotReady(message)


def _version_order(version: str) -> tuple[tuple[int, int | str], ...]:
    """Order "1.9" before "1.10"; parts that are not numbers precede numbers."""
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in version.split("."))


def class_labels(dataset: Dataset, model: ServedModel | None) -> NDArray[np.uint32]:
    """Map the classes of a data set to a model's labels by name; the number of labels where it has no such label."""
    labels = model.labels if model else ()
    places = {name: place for place, name in enumerate(labels)}
    return np.array([places.get(name, len(labels)) for name in dataset.classes], np.uint32)
