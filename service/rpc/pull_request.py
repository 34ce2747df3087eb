"""Read a PullDatasetRequest: every field is checked, and every wrong one is reported.

Which fields are right depends on the plan, so the ticket is opened first; fields that are wrong with any ticket are
reported together with whatever is wrong with this one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.shards import MAX_SHARDS, shard_range
from fount.v1 import augmentation_pb2
from service.augmentation.plan_spec import OpenPlan
from service.augmentation.planner import Planner
from service.augmentation.rows import ProvenanceLevel
from service.caller import Caller
from service.errors import InvalidRequest, Violation

__all__ = ["Pull", "open_pull", "read_level"]

_Part = augmentation_pb2.PullDatasetRequest.Part


@dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """A checked request.

    Attributes:
        plan: the plan of its ticket.
        out_of_bag: rows of the split out of bag; None: the request is for the rows of the plan.
        count: rows of the plan, or out of bag, over all shards.
        shard: rows of the shard.
        start, end: the rows to send of it.
        level: how much provenance is reported.
    """

    plan: OpenPlan
    out_of_bag: NDArray[np.int64] | None
    count: int
    shard: range
    start: int
    end: int
    level: ProvenanceLevel


async def open_pull(request: augmentation_pb2.PullDatasetRequest, planner: Planner, caller: Caller) -> Pull:
    """Open the ticket of a request, and check its fields.

    Raises:
        InvalidRequest: some field is wrong; names every one. Also whatever `Planner.open` raises.
    """
    violations: list[Violation] = []
    level = read_level(request.provenance, "provenance", violations)
    if request.part not in _Part.values():
        violations.append(Violation(field="part", description=f"{request.part} is not a Part"))
    if request.shards > MAX_SHARDS:
        violations.append(Violation(field="shards", description=f"must be 1 to {MAX_SHARDS}, got {request.shards}"))
    try:
        plan = await planner.open(request.ticket, caller)
    except InvalidRequest as error:
        if violations:
            raise InvalidRequest((*error.violations, *violations)) from error
        raise
    out_of_bag = None
    if request.part == augmentation_pb2.PullDatasetRequest.PART_OUT_OF_BAG:
        out_of_bag = await _out_of_bag(plan, violations)
    count = plan.layout.count if out_of_bag is None else len(out_of_bag)
    shards, shard = request.shards or plan.shards, range(0)
    if request.shard < shards:
        shard = shard_range(count, request.shard, shards)
    else:
        description = f"must be below the number of shards, {shards}, got {request.shard}"
        violations.append(Violation(field="shard", description=description))
    start = request.start_index if request.HasField("start_index") else shard.start
    if not violations and not shard.start <= start <= shard.stop:
        description = (
            f"must be within the shard, {shard.start} to {shard.stop}, got {start}; it counts rows of the whole plan"
        )
        violations.append(Violation(field="start_index", description=description))
    end = request.end_index if request.HasField("end_index") else shard.stop
    if not violations and not start <= end <= shard.stop:
        description = f"must be within the shard and not before its start, {start} to {shard.stop}, got {end}"
        violations.append(Violation(field="end_index", description=description))
    if violations:
        raise InvalidRequest(tuple(violations))
    return Pull(plan=plan, out_of_bag=out_of_bag, count=count, shard=shard, start=start, end=end, level=level)


def read_level(value: int, field: str, violations: list[Violation]) -> ProvenanceLevel:
    """Read a ProvenanceLevel; unset is IDS."""
    if value and value not in list(ProvenanceLevel):
        violations.append(Violation(field=field, description=f"{value} is not a ProvenanceLevel"))
        return ProvenanceLevel.IDS
    return ProvenanceLevel(value or ProvenanceLevel.IDS)


async def _out_of_bag(plan: OpenPlan, violations: list[Violation]) -> NDArray[np.int64] | None:
    if plan.layout.is_bootstrapped:
        return await asyncio.to_thread(plan.layout.out_of_bag)
    description = (
        "no row is out of bag: the plan's real rows are not bootstrapped; plan with MODE_BOOTSTRAP or _POISSON"
    )
    violations.append(Violation(field="part", description=description))
    return None
