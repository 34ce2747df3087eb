"""Whether transforms keep labels: a classifier reads rows before and after, under the policy and under each transform.

An open plan enters; the agreement leaves, or a refusal that names the transform which changes most labels.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from fount.readers import DataError
from fount.transforms import Policy, draw
from fount.v1 import augmentation_pb2
from service.augmentation.open_plan import OpenPlan, Pinned
from service.augmentation.permutation import Order
from service.augmentation.slots import Source
from service.catalog.roles import class_labels
from service.domain import Labels
from service.errors import DatasetUnreadable, PlanRefused
from service.rpc.plan_request import VerificationWish
from service.scheduler.inference import InferenceClient, RequestContext

__all__ = ["Verification"]

_BYTES_AT_ONCE = 16 << 20  # of images, of which as many are made at a time

Images = NDArray[np.uint8]


class Verification:
    """Checks the policy of one plan.

    Args:
        plan: with a transformer.
        wish: by whom, and from which agreement on.
        inference: classifies, embeds, transforms and samples on workers.
        context: on whose behalf.
    """

    def __init__(
        self, plan: OpenPlan, wish: VerificationWish, inference: InferenceClient, context: RequestContext
    ) -> None:
        if plan.transformer is None or wish.verifier is None:
            raise ValueError("nothing is transformed, or nobody verifies")
        self._plan, self._wish, self._inference, self._context = plan, wish, inference, context
        self._transformer: Pinned = plan.transformer
        self._verifier: Pinned = wish.verifier
        self._labels_of = class_labels(plan.dataset, wish.verifier.model)

    async def agreement(self) -> augmentation_pb2.LabelAgreement | None:
        """Measure it; None when the verifier reads no row rightly as it is, so that nothing can be said.

        Raises:
            PlanRefused: fewer rows are read rightly after than were wanted.
            DatasetUnreadable: a row cannot be read.
        """
        rows, policies = self._choose(), [self._plan.policy, *_alone(self._plan.policy)]
        right, kept = 0, [0] * len(policies)
        step = max(1, _BYTES_AT_ONCE // math.prod(self._plan.split.shape))
        for first in range(0, len(rows), step):
            images, labels = await self._read_right(rows[first : first + step])
            for place, policy in enumerate(policies):  # one after the other: a caller may have few streams
                kept[place] += await self._count_after(policy, images, labels, right)
            right += len(images)
        if not right:
            return None
        told = augmentation_pb2.LabelAgreement(rows=len(rows), before=right / len(rows), after=kept[0] / right)
        for policy, count in zip(policies[1:], kept[1:], strict=True):
            told.transforms.add(kind=int(policy.transforms[0].kind), after=count / right)
        self._judge(told, right)
        return told

    def _choose(self) -> NDArray[np.int64]:
        """Rows of the classes that are transformed and that the verifier knows, as the plan's seed shuffles them."""
        transformed = {each.label for each in self._plan.layout.strata if each.source is Source.TRANSFORMED}
        known = [label for label in transformed if self._labels_of[label] < len(self._verifier.model.labels)]
        of_classes = np.flatnonzero(np.isin(self._plan.split.labels, known))
        first = np.arange(min(self._wish.rows, len(of_classes)), dtype=np.uint64)
        return np.sort(of_classes[Order(self._plan.seed, len(of_classes)).slots(first)]).astype(np.int64)

    async def _read_right(self, rows: NDArray[np.int64]) -> tuple[Images, Labels]:
        """Those of some rows that are read as their label as they are, and their labels."""
        try:
            images = await asyncio.to_thread(self._plan.split.images, rows)
        except DataError as error:
            raise DatasetUnreadable(f"data set {self._plan.dataset.name}: {error}") from error
        labels = self._labels_of[self._plan.split.labels[rows]]
        right = await self._read_rightly(images, labels)
        self._context = replace(self._context, retry_overloaded=True)  # what has begun waits its turn
        return images[right], labels[right]

    async def _read_rightly(self, images: Images, labels: Labels) -> NDArray[np.bool_]:
        verifier = self._verifier
        probabilities = await self._inference.classify(verifier.target, verifier.model, images, self._context)
        right = np.nan_to_num(probabilities, nan=-1.0).argmax(axis=1) == labels
        return np.asarray(right & ~np.isnan(probabilities).any(axis=1))

    async def _count_after(self, policy: Policy, images: Images, labels: Labels, first: int) -> int:
        """How many are read as their label when transformed, drawn at the addresses from `first` on."""
        addresses = Addresses.of_range(self._plan.seed, first, len(images))
        transformed = await self._inference.transform(
            self._transformer.target,
            self._transformer.model,
            images,
            draw(policy, addresses),
            seed=self._plan.seed,
            indices=addresses.indices,
            context=self._context,
        )
        return int((await self._read_rightly(transformed, labels)).sum())

    def _judge(self, told: augmentation_pb2.LabelAgreement, rows: int) -> None:
        if told.after >= self._wish.min_agreement:
            return
        worst = min(told.transforms, key=lambda each: each.after)
        kind = augmentation_pb2.Transform.Kind.Name(worst.kind).removeprefix("KIND_")
        raise PlanRefused(
            f"{kind} changes labels: alone it leaves {worst.after:.1%} of {rows} rows read as their label by "
            f"{self._verifier.model.key.name}, and the whole policy {told.after:.1%}, below "
            f"verification.min_agreement {self._wish.min_agreement:.1%}; take {kind} out or narrow its range"
        )


def _alone(policy: Policy) -> list[Policy]:
    """Each transform by itself, always applied."""
    return [Policy(transforms=(replace(each, probability=1.0),)) for each in policy.transforms]
