"""From the requests of an Augment stream to what can be worked on: every field checked, every wrong one named."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fount.transforms import Policy, gentle_policy, safe_policy, violations
from fount.v1 import augmentation_pb2, model_pb2
from service.augmentation.open_plan import Level
from service.caller import Caller
from service.catalog import Catalog
from service.datasets import Datasets
from service.domain import Operation, ServedModel, Target
from service.errors import InvalidRequest, Retired, UnknownName, Violation
from service.rpc.policy import policy_from_proto
from service.rpc.pull_request import read_level
from service.validation import raise_violations

__all__ = ["VariantsOrder", "read_config", "read_rows"]

_TRANSFORMER = "transforms"
_INDEX_LIMIT = 2**64
_MOST_VARIANTS, _MOST_SIDE, _MOST_CHANNELS = 1000, 4096, 4
_ROWS_BYTES = 1 << 20
_MESSAGE_OVERHEAD = 1 << 16  # labels and tags beside the pixels of a request


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantsOrder:
    """A checked config.

    Attributes:
        shape: of every image, (H, W, C).
        policy: how rows are transformed.
        variants: of each row.
        seed: the config's, or one drawn here.
        start_index: the number of the first row.
        level: how much each variant tells.
        target: the workers that transform.
        model: what they serve.
    """

    shape: tuple[int, int, int]
    policy: Policy
    variants: int
    seed: int
    start_index: int
    level: Level
    target: Target
    model: ServedModel


def read_config(
    request: augmentation_pb2.AugmentRequest | None,
    *,
    catalog: Catalog,
    datasets: Datasets,
    caller: Caller,
    max_request_bytes: int,
) -> VariantsOrder:
    """Check the first request of a stream; None: the stream ended without one.

    Raises:
        InvalidRequest: it is no config, or some field is wrong; names every one.
        UnknownName: the data set or the model does not exist, and nothing else is wrong.
        NotPermitted: the caller lacks a grant for either.
        NotReady, Retired: no worker can transform now, or none has what is pinned.
    """
    if request is None or request.WhichOneof("kind") != "config":
        raise InvalidRequest((Violation(field="config", description="the first request must be a config"),))
    config, wrong = request.config, list[Violation]()
    shape = _shape(config, max_request_bytes, wrong)
    level = read_level(config.provenance, "config.provenance", wrong)
    variants = config.variants or 1
    if variants > _MOST_VARIANTS:
        wrong.append(_violation("variants", f"must be 1 to {_MOST_VARIANTS}, got {variants}"))
    if config.start_index * variants >= _INDEX_LIMIT:
        wrong.append(_violation("start_index", f"start_index · variants must be below 2^64, got {config.start_index}"))
    policy = _policy(config, shape, datasets, caller, wrong)
    target, model = _transformer(config.model, catalog, caller, wrong)
    return VariantsOrder(
        shape=shape,
        policy=policy,
        variants=variants,
        seed=config.seed if config.HasField("seed") else secrets.randbits(64),
        start_index=config.start_index,
        level=level,
        target=target,
        model=model,
    )


def read_rows(
    rows: augmentation_pb2.AugmentRows, order: VariantsOrder, first_row: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint32] | None]:
    """Check the rows of a request.

    Args:
        rows: of the request.
        order: of the stream.
        first_row: the number of the first of them.

    Returns:
        (n, H, W, C) read-only images and (n,) labels, None when there are none.

    Raises:
        InvalidRequest: some field is wrong; names every one.
    """
    size, wrong = math.prod(order.shape), list[Violation]()
    if not rows.count:
        wrong.append(Violation(field="rows.count", description="must be at least 1"))
    if (first_row + rows.count) * order.variants > _INDEX_LIMIT:
        description = f"the variants of row {first_row + rows.count - 1} would have indices beyond 2^64; begin lower"
        wrong.append(Violation(field="rows.count", description=description))
    if len(rows.labels) not in (0, rows.count):
        description = f"must hold one label a row or none: count is {rows.count}, got {len(rows.labels)}"
        wrong.append(Violation(field="rows.labels", description=description))
    if len(rows.data) != rows.count * size:
        height, width, channels = order.shape
        description = (
            f"must hold count · height · width · channels bytes, {rows.count} · {height} · {width} · {channels} = "
            f"{rows.count * size}, got {len(rows.data)}; pixels are uint8"
        )
        wrong.append(Violation(field="rows.data", description=description))
    if rows.count > 1 and len(rows.data) > _ROWS_BYTES:
        description = (
            f"must hold at most {_ROWS_BYTES} bytes, or one image, got {len(rows.data)}; send fewer rows at once"
        )
        wrong.append(Violation(field="rows.data", description=description))
    if wrong:
        raise InvalidRequest(tuple(wrong))
    images = np.frombuffer(rows.data, np.uint8).reshape(rows.count, *order.shape)  # (bytes,) -> (n, H, W, C)
    return images, np.asarray(rows.labels, np.uint32) if rows.labels else None


def _violation(field: str, description: str) -> Violation:
    return Violation(field=f"config.{field}", description=description)


def _shape(
    config: augmentation_pb2.AugmentConfig, max_request_bytes: int, wrong: list[Violation]
) -> tuple[int, int, int]:
    shape = (config.height, config.width, config.channels)
    limits = (_MOST_SIDE, _MOST_SIDE, _MOST_CHANNELS)
    beyond = [
        _violation(name, f"must be 1 to {most}, got {side}")
        for name, side, most in zip(("height", "width", "channels"), shape, limits, strict=True)
        if not 1 <= side <= most
    ]
    most_bytes = max_request_bytes - _MESSAGE_OVERHEAD
    if not beyond and math.prod(shape) > most_bytes:
        description = f"one image is {math.prod(shape)} bytes, and a request holds {most_bytes}; send smaller images"
        beyond.append(_violation("height", description))
    wrong += beyond
    return shape


def _policy(
    config: augmentation_pb2.AugmentConfig,
    shape: tuple[int, int, int],
    datasets: Datasets,
    caller: Caller,
    wrong: list[Violation],
) -> Policy:
    """The config's own policy, or the safe one of its data set, or the gentle one."""
    safe = gentle_policy()
    if config.dataset:
        caller.require(f"dataset:{config.dataset}")
        try:
            settings = datasets.settings(config.dataset, field="config.dataset")
        except UnknownName as error:
            wrong += error.violations
        else:
            safe = settings.policy or safe_policy(config.dataset, shape)
    if not config.HasField("policy"):
        return safe
    policy = policy_from_proto(config.policy)
    wrong += [_violation(f"policy.{each.key}", f"{each.wrong}; {each.remedy}") for each in violations(policy)]
    return policy


def _transformer(
    ref: model_pb2.ModelRef, catalog: Catalog, caller: Caller, wrong: list[Violation]
) -> tuple[Target, ServedModel]:
    """The workers that transform; raises what is wrong with the config, the model included."""
    if ref.name:
        caller.require(f"sample:{ref.name}")
    name = ref.name or _served_transformer(catalog)
    if not name:
        raise_violations(wrong)
        raise Retired(
            "no model with the operation TRANSFORM is served; serve the archive `transforms` beside the others"
        )
    try:
        entry = catalog.find(name, ref.version, ref.digest)
    except InvalidRequest as error:
        raise_violations([*wrong, *(replace(each, field=f"config.{each.field}") for each in error.violations)])
        raise
    raise_violations(wrong)
    return catalog.choose(entry, Operation.TRANSFORM, digest=ref.digest)


def _served_transformer(catalog: Catalog) -> str:
    """The name of the built-in model that transforms, else of any; empty: none is served."""
    able = [
        entry.name
        for entry in catalog.entries()
        if entry.is_default and entry.model and Operation.TRANSFORM in entry.model.operations
    ]
    return min(able, key=lambda name: (name != _TRANSFORMER, name), default="")
