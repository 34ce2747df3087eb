"""What a ticket opens to: everything rows are made from, resolved against what this gateway has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset, DatasetSplit
from fount.transforms import Policy
from service.augmentation.slots import Layout
from service.domain import Parameters, ServedModel, Target

__all__ = ["OpenPlan", "Pinned"]


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A model that rows depend on.

    Attributes:
        role: "generator", "classifier", "transformer" or "verifier".
        target: its workers, of the pinned numerics.
        model: what it accepts.
    """

    role: str
    target: Target
    model: ServedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenPlan:
    """A plan whose rows can be made here.

    Attributes:
        id: of the plan.
        seed: keys everything that is drawn.
        dataset: with the digest the plan was made on.
        split: the part that is augmented.
        layout: its slots.
        policy: how rows are transformed.
        shards: into how many parts it was planned to be cut.
        bootstrapped: whether there are rows out of bag.
        generator, classifier, transformer: None where no row needs one.
        parameters: of the generator's draws.
        attempts: how many samples a row may try.
        min_confidence: least probability of a sample's label; 0: no filter.
        copy_threshold: ratio below which a sample is a copy; 0: no filter.
        generator_labels: (classes,) uint32, the generator's label of each class; as many as it has where it knows none.
        classifier_labels: (classes,) uint32, the same of the classifier.
    """

    id: str
    seed: int
    dataset: Dataset
    split: DatasetSplit
    layout: Layout
    policy: Policy
    shards: int
    bootstrapped: bool
    generator: Pinned | None
    classifier: Pinned | None
    transformer: Pinned | None
    parameters: Parameters
    attempts: int
    min_confidence: float
    copy_threshold: float
    generator_labels: NDArray[np.uint32]
    classifier_labels: NDArray[np.uint32]
