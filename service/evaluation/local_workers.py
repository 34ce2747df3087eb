"""`Workers` within a gateway: what a runner asks goes to the scheduler without a network between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.caller import Caller
from service.catalog import Catalog
from service.domain import Operation, Parameters, ServedModel, Target
from service.evaluation.specification import PinnedModel
from service.evaluation.workers import DrawnSamples
from service.scheduler.inference import Asked, Asking

__all__ = ["LocalWorkers"]


class LocalWorkers:
    """Asks the workers of this process.

    Args:
        asking: the way to them.
        catalog: what is served now.
        caller: on whose behalf.
    """

    def __init__(self, asking: Asking, catalog: Catalog, caller: Caller | None = None) -> None:
        self._asking, self._catalog = asking, catalog
        caller = caller or Caller(subject="evaluations", grants=frozenset({"*"}))
        self._asked = Asked(caller=caller, patient=False)

    async def sample(
        self,
        model: PinnedModel,
        *,
        seed: int,
        start_index: int,
        count: int,
        labels: NDArray[np.uint32] | None,
        parameters: Parameters,
    ) -> DrawnSamples:
        """See `Workers`."""
        target, served = self._choose(model, Operation.SAMPLE)
        indices = np.uint64(start_index) + np.arange(count, dtype=np.uint64)
        drawn = await self._asking.sample(
            target, served, seed=seed, indices=indices, labels=labels, parameters=parameters, asked=self._asked
        )
        failed = np.zeros(count, bool)
        failed[list(drawn.failures)] = True
        return DrawnSamples(images=drawn.images, failed=failed)

    async def embed(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Workers`."""
        target, served = self._choose(model, Operation.EMBED)
        return await self._asking.embed(target, served, images, self._asked)

    async def classify(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Workers`."""
        target, served = self._choose(model, Operation.CLASSIFY)
        return await self._asking.classify(target, served, images, self._asked)

    async def close(self) -> None:
        """Nothing was opened."""

    def _choose(self, model: PinnedModel, operation: Operation) -> tuple[Target, ServedModel]:
        entry = self._catalog.find(model.name, model.version, model.digest)
        return self._catalog.choose(entry, operation, digest=model.digest, numerics=model.numerics)
