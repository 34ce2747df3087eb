"""Read a PullDatasetRequest: every field is checked, and every wrong one is reported.

Which fields are right depends on the plan, so the ticket is opened first; fields that are wrong with any ticket are
reported together with whatever is wrong with this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fount.augmentation.shards import MAX_SHARDS, shard_range
from fount.v1 import augmentation_pb2
from service.augmentation.plan_spec import OpenPlan
from service.augmentation.rows import ProvenanceLevel
from service.caller import Caller
from service.errors import InvalidRequest
from service.rpc.fields import Violations, raise_violations
from service.rpc.plans import PlanIssuer
from service.threads import run_in_thread

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


async def open_pull(request: augmentation_pb2.PullDatasetRequest, plans: PlanIssuer, caller: Caller) -> Pull:
    """Open the ticket of a request, and check its fields.

    Raises:
        InvalidRequest: some field is wrong; names every one. Also whatever `PlanIssuer.open` raises.
    """
    wrong = Violations()
    level = read_level(request.provenance, "provenance", wrong)
    if request.part not in _Part.values():
        wrong.add("part", f"{request.part} is not a Part")
    wrong.check_range("shards", request.shards or 1, 1, MAX_SHARDS)
    try:
        plan = await plans.open(request.ticket, caller)
    except InvalidRequest as error:
        if wrong:
            raise InvalidRequest((*error.violations, *wrong)) from error
        raise
    out_of_bag = None
    if request.part == augmentation_pb2.PullDatasetRequest.PART_OUT_OF_BAG:
        if plan.layout.is_bootstrapped:
            out_of_bag = await run_in_thread(plan.layout.out_of_bag)
        else:
            modes = "MODE_BOOTSTRAP or _POISSON"
            wrong.add("part", f"no row is out of bag: the plan's real rows are not bootstrapped; plan with {modes}")
    count = plan.layout.count if out_of_bag is None else len(out_of_bag)
    shards, shard = request.shards or plan.spec.shards, range(0)
    if request.shard < shards:
        shard = shard_range(count, request.shard, shards)
    else:
        wrong.add("shard", f"must be below the number of shards, {shards}, got {request.shard}")
    start = request.start_index if request.HasField("start_index") else shard.start
    if not wrong and not shard.start <= start <= shard.stop:
        bounds = f"{shard.start} to {shard.stop}"
        wrong.add("start_index", f"must be within the shard, {bounds}, got {start}; it counts rows of the whole plan")
    end = request.end_index if request.HasField("end_index") else shard.stop
    if not wrong and not start <= end <= shard.stop:
        bounds = f"{start} to {shard.stop}"
        wrong.add("end_index", f"must be within the shard and not before its start, {bounds}, got {end}")
    raise_violations(wrong)
    return Pull(plan=plan, out_of_bag=out_of_bag, count=count, shard=shard, start=start, end=end, level=level)


def read_level(value: int, field: str, wrong: Violations) -> ProvenanceLevel:
    """Read a ProvenanceLevel; unset is IDS."""
    if value and value not in list(ProvenanceLevel):
        wrong.add(field, f"{value} is not a ProvenanceLevel")
        return ProvenanceLevel.IDS
    return ProvenanceLevel(value or ProvenanceLevel.IDS)
