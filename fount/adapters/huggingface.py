"""A plan as an `IterableDataset` of Hugging Face `datasets`: columns `image` and `label`, split by its shards.

Each shard is pulled by the process that reads it: `split_dataset_by_node` and DataLoader workers divide the shards, and
`state_dict` resumes within a shard. Rejected rows are omitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
from PIL import Image

from fount.augmentation.plan import AnyPlan, ticket_of
from fount.augmentation.shards import MAX_SHARDS
from fount.client.sync import Client
from fount.errors import InvalidRequest

__all__ = ["iterable_dataset"]


def iterable_dataset(plan: AnyPlan, server: str | None = None, *, shards: int = 64) -> datasets.IterableDataset:
    """Make a data set of images and class labels from a plan; rows are pulled as they are read.

    Args:
        plan: a plan, or its ticket.
        server: as in `Client`.
        shards: number of parts, and so the most workers that can share it; best a multiple of their number.
    """
    if not 1 <= shards <= MAX_SHARDS:
        fields = [("shards", f"is {shards}; it may be 1 to {MAX_SHARDS}")]
        raise InvalidRequest("The rows cannot be pulled:", fields=fields)
    ticket = ticket_of(plan)
    with Client(server) as client:
        info = client.pull_info(ticket, shards=shards, provenance="none")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(info.classes))})
    # `datasets` divides lists among workers, and passes every other value to each of them.
    arguments = {"ticket": ticket, "server": server, "total": shards, "shards": list(range(shards))}
    return datasets.IterableDataset.from_generator(_examples, features=features, gen_kwargs=arguments)


def _examples(ticket: bytes, server: str | None, total: int, shards: list[int]) -> Iterator[dict[str, Any]]:
    with Client(server) as client:
        for shard in shards:
            for batch in client.pull(ticket, shard=shard, shards=total, provenance="none"):
                accepted = batch.accepted()
                for image, label in zip(accepted.images, accepted.labels.tolist(), strict=True):
                    pixels = image[..., 0] if image.shape[-1] == 1 else image  # one channel is grey
                    yield {"image": Image.fromarray(pixels), "label": label}
