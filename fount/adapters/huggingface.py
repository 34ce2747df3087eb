"""A plan as an `IterableDataset` of Hugging Face `datasets`: columns `image` and `label`, split by its shards.

Each shard is pulled by whoever reads it: `split_dataset_by_node` and DataLoader workers share the shards among them,
and `state_dict` goes on within one. Rows without a sample are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fount.augmentation.plan import AnyPlan, ticket_of
from fount.augmentation.shards import MAX_SHARDS
from fount.client.sync import Client
from fount.errors import InvalidRequest

__all__ = ["iterable_dataset"]


def iterable_dataset(plan: AnyPlan, server: str | None = None, *, shards: int = 64) -> datasets.IterableDataset:
    """See a plan as a data set of images and class labels; rows are pulled as they are read.

    Args:
        plan: a plan, or its ticket.
        server: as in `Client`.
        shards: into how many parts it is cut: at most so many workers share it, best a multiple of their number.

    Raises:
        InvalidRequest: the number of shards is not 1 to 65536.
        FountError: the gateway does not know the plan, or does not answer.
    """
    if not 1 <= shards <= MAX_SHARDS:
        fields = [("shards", f"is {shards}; it may be 1 to {MAX_SHARDS}")]
        raise InvalidRequest("The rows cannot be pulled:", fields=fields)
    ticket = ticket_of(plan)
    with Client(server) as client:
        info = client.pull_info(ticket, shards=shards, provenance="none")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(info.classes))})
    # `datasets` splits what is a list among workers, and gives everything else to each.
    among = {"ticket": ticket, "server": server, "of": shards, "shards": list(range(shards))}
    return datasets.IterableDataset.from_generator(_examples, features=features, gen_kwargs=among)


def _examples(ticket: bytes, server: str | None, of: int, shards: list[int]) -> Iterator[dict[str, Any]]:
    with Client(server) as client:
        for shard in shards:
            for batch in client.pull(ticket, shard=shard, shards=of, provenance="none"):
                accepted = batch.accepted()
                for image, label in zip(accepted.images, accepted.labels.tolist(), strict=True):
                    yield {"image": _picture(image), "label": label}


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """(H, W, C) as a picture; one channel is grey."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
