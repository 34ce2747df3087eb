"""Read the requests of an Augment stream: every field is checked, and every wrong one is reported.

The first request holds the config, and becomes a `VariantSpec`; the others hold rows, and become `ReceivedRows`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import numpy as np

from fount.transforms import Policy, gentle_policy, safe_policy
from fount.v1 import augmentation_pb2
from service.augmentation.variants import ReceivedRows, VariantSpec
from service.caller import Caller
from service.catalog import Catalog, PinnedModel
from service.datasets import Datasets
from service.domain import Operation
from service.errors import InvalidRequest, Retired, UnknownName, Violation
from service.rpc.fields import NO_TRANSFORMER, Violations, raise_violations, read_policy
from service.rpc.pull_request import read_level

__all__ = ["AugmentRequests"]

_INDEX_LIMIT = 2**64
_MOST_VARIANTS, _MOST_SIDE, _MOST_CHANNELS = 1000, 4096, 4
_ROWS_BYTES = 1 << 20
_MESSAGE_OVERHEAD = 1 << 16  # labels and tags, in addition to the pixels of a request


class AugmentRequests:
    """Reads Augment streams, whose messages hold at most `max_request_bytes`."""

    def __init__(self, datasets: Datasets, catalog: Catalog, max_request_bytes: int) -> None:
        self._datasets, self._catalog = datasets, catalog
        self._most_image_bytes = max_request_bytes - _MESSAGE_OVERHEAD

    async def read_config(self, request: augmentation_pb2.AugmentRequest | None, caller: Caller) -> VariantSpec:
        """Read the first request of a stream; None: the stream ended without one.

        Raises:
            InvalidRequest: it is no config, or some field is wrong; names every one.
            UnknownName: the data set or the model does not exist, and nothing else is wrong.
            NotPermitted: the caller has no grant for either.
            NotReady, Retired: no worker can transform now, or none has the pinned digest.
        """
        if request is None or request.WhichOneof("kind") != "config":
            raise InvalidRequest((Violation(field="config", description="the first request must be a config"),))
        config, wrong = request.config, Violations()
        shape = self._read_shape(config, wrong)
        level = read_level(config.provenance, "config.provenance", wrong)
        variants, start_index = config.variants or 1, config.start_index
        wrong.check_range("config.variants", variants, 1, _MOST_VARIANTS)
        if start_index * variants >= _INDEX_LIMIT:
            wrong.add("config.start_index", f"start_index · variants must be below 2^64, got {start_index}")
        return VariantSpec(
            shape=shape,
            policy=self._read_policy(config, shape, caller, wrong),
            variants=variants,
            seed=config.seed if config.HasField("seed") else secrets.randbits(64),
            start_index=start_index,
            level=level,
            transformer=self._find_transformer(config, caller, wrong),
        )

    async def read_rows(
        self, requests: AsyncIterator[augmentation_pb2.AugmentRequest], spec: VariantSpec
    ) -> AsyncGenerator[ReceivedRows]:
        """Read the rows of all other requests.

        Raises:
            InvalidRequest: a request holds no rows, or some field is wrong; names every one.
        """
        first_row = spec.start_index
        async for request in requests:
            kind = request.WhichOneof("kind")
            if kind != "rows":
                description = "only the first request is a config; send rows"
                raise InvalidRequest((Violation(field=kind or "rows", description=description),))
            rows = _read_rows(request.rows, spec, first_row)
            yield rows
            first_row += len(rows.images)

    def _read_shape(self, config: augmentation_pb2.AugmentConfig, wrong: Violations) -> tuple[int, int, int]:
        shape = (config.height, config.width, config.channels)
        limits = (_MOST_SIDE, _MOST_SIDE, _MOST_CHANNELS)
        for name, side, most in zip(("height", "width", "channels"), shape, limits, strict=True):
            wrong.check_range(f"config.{name}", side, 1, most)
        if not wrong and math.prod(shape) > self._most_image_bytes:
            size = f"one image is {math.prod(shape)} bytes, and a request holds {self._most_image_bytes}"
            remedy = "send smaller images"
            if config.dataset:  # whose rows the images may be
                remedy = f"set size in the configuration of the data set {config.dataset!r}, or {remedy}"
            wrong.add("config.height", f"{size}; {remedy}")
        return shape

    def _read_policy(
        self,
        config: augmentation_pb2.AugmentConfig,
        shape: tuple[int, int, int],
        caller: Caller,
        wrong: Violations,
    ) -> Policy:
        """Read the config's own policy, or choose the safe one of its data set, or the gentle one."""
        safe = gentle_policy()
        if config.dataset:
            caller.require(f"dataset:{config.dataset}")
            try:
                settings = self._datasets.settings(config.dataset, field="config.dataset")
            except UnknownName as error:
                wrong += error.violations
            else:
                safe = settings.policy or safe_policy(config.dataset, shape)
        if not config.HasField("policy"):
            return safe
        return read_policy(config.policy, "config.policy", wrong)

    def _find_transformer(
        self, config: augmentation_pb2.AugmentConfig, caller: Caller, wrong: Violations
    ) -> PinnedModel:
        """Find the workers that transform; raises everything that is wrong with the config, the model included."""
        reference, default = config.model, self._catalog.transformer()
        if reference.name:
            caller.require(f"sample:{reference.name}")
        elif default is None:
            raise_violations(wrong)
            raise Retired(NO_TRANSFORMER)
        name = reference.name or (default.name if default else "")
        try:
            entry = self._catalog.find(name, reference.version, reference.digest)
        except InvalidRequest as error:
            raise_violations([*wrong, *(replace(each, field=f"config.{each.field}") for each in error.violations)])
            raise
        raise_violations(wrong)
        target, model = self._catalog.choose(entry, Operation.TRANSFORM, digest=reference.digest)
        return PinnedModel(role="transformer", target=target, model=model)


def _read_rows(rows: augmentation_pb2.AugmentRows, spec: VariantSpec, first_row: int) -> ReceivedRows:
    size, wrong = math.prod(spec.shape), Violations()
    if not rows.count:
        wrong.add("rows.count", "must be at least 1")
    if (first_row + rows.count) * spec.variants > _INDEX_LIMIT:
        last = first_row + rows.count - 1
        description = f"the variants of row {last} would have indices beyond 2^64; start at a lower row"
        wrong.add("rows.count", description)
    if len(rows.labels) not in (0, rows.count):
        wrong.add("rows.labels", f"must hold one label a row or none: count is {rows.count}, got {len(rows.labels)}")
    if len(rows.data) != rows.count * size:
        height, width, channels = spec.shape
        description = (
            f"must hold count · height · width · channels bytes, {rows.count} · {height} · {width} · {channels} = "
            f"{rows.count * size}, got {len(rows.data)}; pixels are uint8"
        )
        wrong.add("rows.data", description)
    if rows.count > 1 and len(rows.data) > _ROWS_BYTES:
        description = f"must hold at most {_ROWS_BYTES} bytes, or one image, got {len(rows.data)}; send fewer rows"
        wrong.add("rows.data", description)
    raise_violations(wrong)
    images = np.frombuffer(rows.data, np.uint8).reshape(rows.count, *spec.shape)  # (bytes,) -> (n, H, W, C)
    labels = np.asarray(rows.labels, np.uint32) if rows.labels else None
    return ReceivedRows(first_row=first_row, images=images, labels=labels)
