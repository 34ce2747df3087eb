"""Check that transforms keep labels: a classifier reads rows before and after, under the policy and each transform.

An open plan enters; the agreement leaves, or a refusal that names the transform that changes most labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses
from fount.transforms import Kind, Policy, draw
from service.augmentation.permutation import Permutation
from service.augmentation.plan_spec import OpenPlan
from service.augmentation.slots import Source
from service.calls import Labels
from service.catalog import class_labels
from service.datasets import unreadable_errors
from service.errors import PlanRefused
from service.scheduler.inference import InferenceClient
from service.scheduler.work import RequestContext
from service.threads import run_in_thread

__all__ = ["LabelAgreement", "Verification"]

_BYTES_AT_ONCE = 16 << 20  # of images, which are transformed together

Images = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class LabelAgreement:
    """How many rows a classifier reads as their label.

    Attributes:
        rows: number of rows tried.
        before: share read as their label as they are.
        after: share of those that are still read as their label when transformed by the whole policy.
        transforms: the same share for each transform alone, always applied.
    """

    rows: int
    before: float
    after: float
    transforms: tuple[tuple[Kind, float], ...]


class Verification:
    """Checks the policy of one plan, which has a transformer and a verifier."""

    def __init__(self, plan: OpenPlan, inference: InferenceClient, context: RequestContext) -> None:
        spec = plan.spec.verification
        if plan.transformer is None or spec.verifier is None:
            raise ValueError("the plan transforms no row, or has no verifier")
        self._plan, self._spec, self._inference, self._context = plan, spec, inference, context
        self._transformer, self._verifier = plan.transformer, spec.verifier
        self._labels_of = class_labels(plan.spec.dataset, spec.verifier.model)

    async def agreement(self) -> LabelAgreement | None:
        """Measure the agreement; None when the verifier reads no row as its label as it is.

        Raises:
            PlanRefused: the agreement is below the minimum.
            DatasetUnreadable: a row cannot be read.
        """
        rows, transforms = self._choose_rows(), self._plan.spec.policy.transforms
        alone = [Policy(transforms=(replace(each, probability=1.0),)) for each in transforms]
        policies = [self._plan.spec.policy, *alone]
        correct, kept = 0, [0] * len(policies)
        step = max(1, _BYTES_AT_ONCE // math.prod(self._plan.spec.split.shape))
        for first in range(0, len(rows), step):
            images, labels = await self._read_correct(rows[first : first + step])
            for place, policy in enumerate(policies):  # one after the other: a caller may have few streams
                kept[place] += await self._count_kept(policy, images, labels, correct)
            correct += len(images)
        if not correct:
            return None
        after = [count / correct for count in kept]
        agreement = LabelAgreement(
            rows=len(rows),
            before=correct / len(rows),
            after=after[0],
            transforms=tuple((each.kind, share) for each, share in zip(transforms, after[1:], strict=True)),
        )
        self._check(agreement, correct)
        return agreement

    def _choose_rows(self) -> NDArray[np.int64]:
        """Choose rows of the classes that are transformed and that the verifier knows, as the seed shuffles them."""
        transformed = {each.label for each in self._plan.layout.strata if each.source is Source.TRANSFORMED}
        known = [label for label in transformed if self._labels_of[label] < len(self._verifier.model.labels)]
        of_classes = np.flatnonzero(np.isin(self._plan.spec.split.labels, known))
        first = np.arange(min(self._spec.rows, len(of_classes)), dtype=np.uint64)
        return np.sort(of_classes[Permutation(self._plan.spec.seed, len(of_classes)).slots(first)]).astype(np.int64)

    async def _read_correct(self, rows: NDArray[np.int64]) -> tuple[Images, Labels]:
        """Return those of some rows that are read as their label as they are, and their labels."""
        with unreadable_errors(self._plan.spec.dataset.name, self._plan.spec.dataset.path):
            images = await run_in_thread(self._plan.spec.split.images, rows)
        labels = self._labels_of[self._plan.spec.split.labels[rows]]
        correct = await self._are_correct(images, labels)
        self._context = replace(self._context, retry_overloaded=True)  # work that has started waits for capacity
        return images[correct], labels[correct]

    async def _are_correct(self, images: Images, labels: Labels) -> NDArray[np.bool_]:
        verifier = self._verifier
        probabilities = await self._inference.classify(verifier.target, verifier.model, images, self._context)
        correct = np.nan_to_num(probabilities, nan=-1.0).argmax(axis=1) == labels
        return np.asarray(correct & ~np.isnan(probabilities).any(axis=1))

    async def _count_kept(self, policy: Policy, images: Images, labels: Labels, first: int) -> int:
        """Count rows read as their label when transformed, drawn at the addresses from `first` on."""
        addresses = Addresses.of_range(self._plan.spec.seed, first, len(images))
        transformed = await self._inference.transform(
            self._transformer.target,
            self._transformer.model,
            images,
            draw(policy, addresses),
            seed=self._plan.spec.seed,
            indices=addresses.indices,
            context=self._context,
        )
        return int((await self._are_correct(transformed, labels)).sum())

    def _check(self, agreement: LabelAgreement, rows: int) -> None:
        if agreement.after >= self._spec.min_agreement:
            return
        kind, after = min(agreement.transforms, key=lambda each: each[1])
        raise PlanRefused(
            f"{kind.name} changes labels: alone it leaves {after:.1%} of {rows} rows read as their label by "
            f"{self._verifier.model.key.name}, and the whole policy {agreement.after:.1%}, below "
            f"verification.min_agreement {self._spec.min_agreement:.1%}; remove {kind.name} or narrow its range"
        )
