"""What a data set of a gateway is, as a client sees it: a frozen value made of `fount.v1.Dataset`."""

from __future__ import annotations

from dataclasses import dataclass

from fount.v1 import dataset_pb2

__all__ = ["DatasetInfo", "SplitInfo", "dataset_info"]


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """One part of a data set.

    Attributes:
        name: "train", "test", or as configured.
        rows: how many images it has.
        class_counts: how many of each class, by id.
        group_counts: how many of each group, by id; empty without a group column.
    """

    name: str
    rows: int
    class_counts: tuple[int, ...]
    group_counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Labelled images that a gateway can augment.

    Attributes:
        name: what plans call it.
        digest: of the pixels and labels of all splits; empty when it cannot be read.
        classes: class names by id.
        groups: group names by id; empty without a group column.
        shape: (height, width, channels) of one image; empty when it cannot be read.
        splits: its parts, "train" first.
        format: what it is packed in.
        licence: the licence of the data; empty when nobody said.
        classifier: the model that checks its labels; empty when none is configured.
        problem: why it cannot be read; empty when it can.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    shape: tuple[int, ...]
    splits: tuple[SplitInfo, ...]
    format: str
    licence: str
    classifier: str
    problem: str


def dataset_info(dataset: dataset_pb2.Dataset) -> DatasetInfo:
    """Read a data set from its message."""
    return DatasetInfo(
        name=dataset.name,
        digest=dataset.digest,
        classes=tuple(dataset.classes),
        groups=tuple(dataset.groups),
        shape=tuple(dataset.sample_spec.dims),
        splits=tuple(
            SplitInfo(
                name=split.name,
                rows=split.rows,
                class_counts=tuple(split.class_counts),
                group_counts=tuple(split.group_counts),
            )
            for split in dataset.splits
        ),
        format=dataset.format,
        licence=dataset.licence,
        classifier=dataset.classifier,
        problem=dataset.problem,
    )
