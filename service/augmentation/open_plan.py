"""What a ticket opens to: everything rows are made from, resolved against what this gateway has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fount.readers import Dataset, DatasetSplit
from fount.transforms import Policy
from service.augmentation.slots import Layout
from service.domain import Parameters, ServedModel, Target

__all__ = ["NO_ROW", "Level", "MadeRows", "OpenPlan", "Origins", "Pinned"]


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


# FOLDED FROM service.augmentation.open_plan:
# Rows as they are made: images, labels, and where each came from, a column a fact. No protobuf.


NO_ROW = 2**64 - 1
"""The source row of a synthesised row."""


class Level(IntEnum):
    """How much every row tells of where it came from, numbered as fount.v1.ProvenanceLevel."""

    NONE = 1
    IDS = 2
    FULL = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Origins:
    """Where rows came from.

    Attributes:
        sources: (n,) uint8, as fount.v1.Source.
        source_rows: (n,) uint64, rows of the split, or NO_ROW.
        seeds, indices: (n,) uint64, the address of what was drawn for each.
        attempts: (n,) uint32, samples refused before; None: nothing was synthesised.
        transforms: (n, columns) float32, NaN where a transform was not applied; None: none was, or nobody asked.
        confidences: (n,) float32, NaN where none; None: no classifier was asked, or nobody asked for them.
        copy_ratios: (n,) float32, likewise.
    """

    sources: NDArray[np.uint8]
    source_rows: NDArray[np.uint64]
    seeds: NDArray[np.uint64]
    indices: NDArray[np.uint64]
    attempts: NDArray[np.uint32] | None = None
    transforms: NDArray[np.float32] | None = None
    confidences: NDArray[np.float32] | None = None
    copy_ratios: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeRows:
    """Consecutive rows.

    Attributes:
        first_index: of the first.
        images: (n, H, W, C) uint8, C-contiguous; zero for rejected ones.
        labels: (n,) uint32; None: they have none.
        groups: (n,) uint32; None: no group column.
        weights: (n,) uint32; None: all are 1.
        rejected: rows, from 0, for which no sample was accepted; to how many were tried.
        origins: None where nobody asked.
        counts: rows by source as fount.v1.Source, rejected ones left out, for metrics.
        refused: samples refused on the way, for metrics.
    """

    first_index: int
    images: NDArray[np.uint8]
    labels: NDArray[np.uint32] | None
    groups: NDArray[np.uint32] | None = None
    weights: NDArray[np.uint32] | None = None
    rejected: dict[int, int]
    origins: Origins | None
    counts: dict[int, int]
    refused: int = 0
