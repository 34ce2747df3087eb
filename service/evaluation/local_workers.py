"""`Workers` within a gateway: what a runner asks goes to the scheduler without a network between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.caller import Caller
from service.catalog import Catalog
from service.domain import Operation, Parameters, ServedModel, Target
from service.evaluation.specification import PinnedModel
from service.evaluation.workers import DrawnSamples
from service.scheduler.inference import InferenceClient, RequestContext

__all__ = ["LocalWorkers"]


class LocalWorkers:
    """Asks the workers of this process.

    Args:
        asking: the way to them.
        catalog: what is served now.
        caller: on whose behalf.
    """

    def __init__(self, inference: InferenceClient, catalog: Catalog, caller: Caller | None = None) -> None:
        self._inference, self._catalog = inference, catalog
        caller = caller or Caller(subject="evaluations", grants=frozenset({"*"}))
        self._context = RequestContext(caller=caller, retry_overloaded=False)

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
        drawn = await self._inference.sample(
            target, served, seed=seed, indices=indices, labels=labels, parameters=parameters, context=self._context
        )
        failed = np.zeros(count, bool)
        failed[list(drawn.failures)] = True
        return DrawnSamples(images=drawn.images, failed=failed)

    async def embed(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Workers`."""
        target, served = self._choose(model, Operation.EMBED)
        return await self._inference.embed(target, served, images, self._context)

    async def classify(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Workers`."""
        target, served = self._choose(model, Operation.CLASSIFY)
        return await self._inference.classify(target, served, images, self._context)

    async def close(self) -> None:
        """Nothing was opened."""

    def _choose(self, model: PinnedModel, operation: Operation) -> tuple[Target, ServedModel]:
        entry = self._catalog.find(model.name, model.version, model.digest)
        return self._catalog.choose(entry, operation, digest=model.digest, numerics=model.numerics)
