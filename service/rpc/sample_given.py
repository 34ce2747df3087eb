"""Read what samples are conditional on besides a label: latents, a prefix, or an image with a mask.

A `Condition` and its model enter; the given values of one row, or of each sample, leave. Everything wrong is a
violation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.v1 import sampling_pb2
from service.domain import ConditionKind, Dtype, Operation, ServedModel
from service.rpc.fields import Violations
from service.rpc.input_rows import read_values, text_problem

__all__ = ["GIVEN_FIELDS", "GivenValues", "operation_of", "read_given_values"]

GIVEN_FIELDS = ("latent", "prefix", "image", "mask")
"""The fields of a condition besides those of labels."""

_KINDS = {"prefix": ConditionKind.PREFIX, "image": ConditionKind.MASK, "mask": ConditionKind.MASK}
_PATH = "condition"


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenValues:
    """What samples are computed from, or keep.

    Attributes:
        operation: DECODE of latents, TRANSLATE of images without masks, or SAMPLE.
        rows: (count, ...) one for each sample, or (1, ...) of all.
        mask: the same, 1 where a value is given, else 0; None: all are.
        prefix: the beginning of every sample; empty: none.
    """

    operation: Operation
    rows: NDArray[np.uint8] | NDArray[np.float32]
    mask: NDArray[np.float32] | None = None
    prefix: bytes = b""


def operation_of(condition: sampling_pb2.Condition, operations: frozenset[Operation]) -> Operation:
    """Return what draws the samples of a condition, of a model with these operations."""
    if condition.HasField("latent"):
        return Operation.DECODE
    translates = condition.HasField("image") and not condition.HasField("mask")
    if Operation.TRANSLATE in operations and (translates or Operation.SAMPLE not in operations):
        return Operation.TRANSLATE
    return Operation.SAMPLE


def read_given_values(
    condition: sampling_pb2.Condition, operation: Operation, count: int, model: ServedModel, wrong: Violations
) -> GivenValues | None:
    """Read the given values of a condition for `count` samples; None when there are none, or they are wrong."""
    given = [field.name for field, _ in condition.ListFields() if field.name in GIVEN_FIELDS]
    if operation is Operation.TRANSLATE:
        return _read_translated(condition, given, count, model, wrong)
    foreign = [name for name in given if name in _KINDS and _KINDS[name] not in model.conditions]
    for name in foreign:
        wrong.add(f"{_PATH}.{name}", f"{model.key.name} takes no {name}; leave it out")
    before, known = len(wrong), [name for name in given if name not in foreign]
    groups = {"image" if name == "mask" else name for name in known}
    if len(groups) > 1:
        others = " and ".join(known[1:])
        wrong.add(f"{_PATH}.{known[0]}", f"cannot go with {others}; give latent, prefix, or image with mask")
        return None
    values = None
    if "latent" in groups:
        rows = _read_rows(condition, "latent", count, (model.latent_dim,), model, wrong)
        values = GivenValues(operation=Operation.DECODE, rows=rows)
    elif "prefix" in groups:
        values = _read_prefix(condition.prefix, model, wrong)
    elif "image" in groups:
        values = _read_image(condition, count, model, wrong)
    return values if len(wrong) == before else None


def _read_translated(
    condition: sampling_pb2.Condition, given: list[str], count: int, model: ServedModel, wrong: Violations
) -> GivenValues | None:
    """Read the images that samples are made of."""
    before = len(wrong)
    for name in given:
        if name != "image":
            wrong.add(f"{_PATH}.{name}", f"{model.key.name} takes no {name}; leave it out")
    if "image" not in given:
        wrong.add(f"{_PATH}.image", f"is missing: {model.key.name} makes its samples of given pictures; give one")
        return None
    rows = _read_rows(condition, "image", count, model.input_dims, model, wrong)
    return GivenValues(operation=Operation.TRANSLATE, rows=rows) if len(wrong) == before else None


def _read_rows(
    condition: sampling_pb2.Condition,
    name: str,
    count: int,
    shape: tuple[int, ...],
    model: ServedModel,
    wrong: Violations,
) -> NDArray[np.uint8] | NDArray[np.float32]:
    rows, field = getattr(condition, name), f"{_PATH}.{name}"
    if rows.labels:
        wrong.add(f"{field}.labels", "name classes by label, labels or mixture of the condition; leave these out")
    if rows.count not in (0, 1, count):
        wrong.add(f"{field}.count", f"must be 1, or one a sample: count is {count}, got {rows.count}")
    is_latent = name == "latent"
    return read_values(
        rows,
        field,
        shape=shape,
        takes_bytes=not is_latent,
        value_range=None if is_latent else model.value_range,
        wrong=wrong,
    )


def _read_prefix(prefix: bytes, model: ServedModel, wrong: Violations) -> GivenValues:
    """Read a prefix: the first values of a row, in the order of its bytes."""
    field, size, unit = f"{_PATH}.prefix", int(np.prod(model.sample_dims)), max(1, model.prefix_unit)
    if not prefix:
        wrong.add(field, "is empty; leave it out, or give the beginning of the samples")
    if model.is_text and (problem := text_problem(prefix)):
        wrong.add(field, problem)
    if len(prefix) > size:
        wrong.add(field, f"has {len(prefix)} bytes, and a sample with its prefix has {size} at most; shorten it")
        prefix = prefix[:size]
    elif len(prefix) % unit:
        wrong.add(field, f"has {len(prefix)} bytes, which must be a multiple of {unit}")
    rows, mask = np.zeros((1, size), np.uint8), np.zeros((1, size), np.float32)
    rows[0, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    mask[0, : len(prefix)] = 1
    dims = (1, *model.sample_dims)
    return GivenValues(operation=Operation.SAMPLE, rows=rows.reshape(dims), mask=mask.reshape(dims), prefix=prefix)


def _read_image(
    condition: sampling_pb2.Condition, count: int, model: ServedModel, wrong: Violations
) -> GivenValues | None:
    has_image = condition.HasField("image")
    if has_image != condition.HasField("mask"):
        missing, other = ("mask", "image") if has_image else ("image", "mask")
        wrong.add(f"{_PATH}.{missing}", f"is missing, and {other} is given; give both")
        return None
    rows = _read_rows(condition, "image", count, model.sample_dims, model, wrong)
    mask = _read_rows(condition, "mask", count, model.sample_dims, model, wrong)
    if mask.dtype != np.uint8:
        wrong.add(f"{_PATH}.mask.dtype", f"must be DTYPE_UINT8, got {int(Dtype.FLOAT32)}")
    elif mask.size and mask.max() > 1:
        wrong.add(f"{_PATH}.mask.data", f"has the value {mask.max()}; send 1 where the image is given, else 0")
    return GivenValues(operation=Operation.SAMPLE, rows=rows, mask=mask.astype(np.float32))
