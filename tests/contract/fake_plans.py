"""A fake gateway for plans: a real gRPC server whose rows can be checked by hand.

Row i of a plan is filled with bytes of i; its class is i mod 3. Tickets are "<plan id>#<number of plans made>".
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from google.rpc import code_pb2
from grpc_status import rpc_status

from fount.augmentation.shards import shard_range
from fount.v1 import augmentation_pb2, augmentation_pb2_grpc, model_pb2, sampling_pb2
from tests.contract.fake_gateway import DIGEST, NUMERICS, SIDE, error_info, invalid, rich, sample_spec

CLASSES = ("zero", "one/two", "../x")
COLUMNS = ("rotate_degrees", "shift_x")
SOURCES = [1, 2, 3, 4]  # of row i: real, resampled, transformed, synthesised, by i mod 4


def row_pixels(index: int) -> np.ndarray:
    """(4, 4, 1) uint8: the image of row `index`."""
    return ((np.arange(SIDE * SIDE) + 7 * index) % 256).astype(np.uint8).reshape(SIDE, SIDE, 1)


@dataclass
class FakePlans(augmentation_pb2_grpc.AugmentationServiceServicer):
    """Attributes:
    rows: rows of every plan.
    chunk: rows a message.
    hold_from: the row at which streams wait for `released`; None: none waits.
    released: lets waiting streams continue.
    rejected: slots without a sample.
    classes: the class names.
    channels: of every image; each is the same.
    groups: the group names; row i is of group i mod their number, and every fifth row of none.
    void_tickets: tickets that are refused as expired.
    break_at: the row before which the first stream that reaches it breaks; None: none breaks.
    planned_sources: sources that every class of a plan has slots of.
    pulls: every request for rows.
    other_ids: whether planning the same specification again gives another plan.
    """

    rows: int = 40
    chunk: int = 4
    hold_from: int | None = None
    released: threading.Event = field(default_factory=threading.Event)
    rejected: frozenset[int] = frozenset()
    classes: tuple[str, ...] = CLASSES
    channels: int = 1
    groups: tuple[str, ...] = ()
    void_tickets: set[bytes] = field(default_factory=set)
    break_at: int | None = None
    other_ids: bool = False
    planned_sources: tuple[int, ...] = (1, 4)
    pulls: list[augmentation_pb2.PullDatasetRequest] = field(default_factory=list)
    plans: dict[str, augmentation_pb2.Plan] = field(default_factory=dict)
    given: int = 0

    def PlanDataset(self, request, context) -> augmentation_pb2.PlanDatasetResponse:
        if request.dataset != "digits":
            abort(context, rich(code_pb2.NOT_FOUND, f'no data set "{request.dataset}"', error_info("NO_DATASET")))
        self.given += 1
        resolved = augmentation_pb2.PlanDatasetRequest()
        resolved.CopyFrom(request)
        resolved.split = resolved.split or "train"
        resolved.shards = resolved.shards or 2
        if not request.HasField("seed"):
            resolved.seed = 1000 + self.given
        salt = str(self.given) if self.other_ids else ""
        plan_id = hashlib.sha256(resolved.SerializeToString(deterministic=True) + salt.encode()).hexdigest()[:16]
        plan = self.plan(plan_id, resolved)
        self.plans[plan_id] = plan
        return augmentation_pb2.PlanDatasetResponse(plan=plan)

    def plan(self, plan_id: str, request: augmentation_pb2.PlanDatasetRequest) -> augmentation_pb2.Plan:
        plan = augmentation_pb2.Plan(
            id=plan_id,
            ticket=f"{plan_id}#{self.given}".encode(),
            request=request,
            dataset_digest=DIGEST,
            classes=self.classes,
            groups=self.groups,
            rows=self.rows,
            class_weights=[1, 0.5, 2],
            expected_rejected=3,
            expected_attempts=1.5,
            copy_threshold=0.25,
            models=[self.model()],
            agreement=augmentation_pb2.LabelAgreement(rows=256, before=0.99, after=0.97),
            warnings=[augmentation_pb2.PlanWarning(reason="FEW_ROWS", message="zero has 3 rows.")],
        )
        plan.agreement.transforms.add(kind=augmentation_pb2.Transform.KIND_ROTATE, after=0.98)
        for label in range(3):
            for source in self.planned_sources:
                plan.slots.add(label=label, group=0, source=source, count=1000 + 10 * label + source)
        plan.estimated_time.FromSeconds(90)
        plan.create_time.FromSeconds(1_700_000_000)
        plan.expire_time.FromSeconds(1_700_086_400)
        return plan

    def GetPlan(self, request, context) -> augmentation_pb2.GetPlanResponse:
        if request.id not in self.plans:
            abort(context, rich(code_pb2.NOT_FOUND, f'no plan "{request.id}"', error_info("NO_PLAN")))
        return augmentation_pb2.GetPlanResponse(plan=self.plans[request.id])

    def ListPlans(self, request, context) -> augmentation_pb2.ListPlansResponse:
        return augmentation_pb2.ListPlansResponse(plans=self.plans.values())

    def PullDataset(self, request, context) -> Iterator[augmentation_pb2.PullDatasetResponse]:
        self.pulls.append(request)
        if request.ticket in self.void_tickets or b"#" not in request.ticket:
            abort(context, invalid(ticket="has expired; plan again"))
        is_full = request.provenance == augmentation_pb2.PROVENANCE_LEVEL_FULL
        shards = request.shards or 2
        shard = shard_range(self.rows, request.shard, shards)
        spec = sample_spec(model_pb2.ENCODING_UINT8)
        spec.dims[2] = self.channels
        yield augmentation_pb2.PullDatasetResponse(
            header=augmentation_pb2.PullHeader(
                plan_id=request.ticket.decode().partition("#")[0],
                rows=self.rows,
                first_index=shard.start,
                end_index=shard.stop,
                sample_spec=spec,
                classes=self.classes,
                groups=self.groups,
                dataset="digits",
                dataset_digest=DIGEST,
                models=[self.model()],
                transform_columns=COLUMNS if is_full else (),
            )
        )
        start = request.start_index if request.HasField("start_index") else shard.start
        end = request.end_index if request.HasField("end_index") else shard.stop
        for index in range(start, end, self.chunk):
            if self.hold_from is not None and index >= self.hold_from:
                self.released.wait(30)
            if self.break_at is not None and index >= self.break_at:
                self.break_at = None
                abort(context, rich(code_pb2.UNAVAILABLE, "draining", error_info("DRAINING")))
            rows = range(index, min(index + self.chunk, end))
            yield augmentation_pb2.PullDatasetResponse(chunk=self.chunk_of(rows, request.provenance))

    def chunk_of(self, rows: range, level: int) -> augmentation_pb2.RowChunk:
        pixels = [row_pixels(i).repeat(self.channels, axis=2) * np.uint8(i not in self.rejected) for i in rows]
        chunk = augmentation_pb2.RowChunk(
            samples=sampling_pb2.SampleChunk(
                start_index=rows.start,
                count=len(rows),
                labels=[index % 3 for index in rows],
                data=np.stack(pixels).tobytes(),
            ),
            groups=[len(self.groups) if i % 5 == 4 else i % len(self.groups) for i in rows] if self.groups else [],
            weights=[index % 2 for index in rows],
        )
        for index in self.rejected.intersection(rows):
            status = rich(code_pb2.ABORTED, "no sample was accepted", error_info("REJECTED"))
            chunk.samples.errors.add(index=index, status=status)
        if level != augmentation_pb2.PROVENANCE_LEVEL_NONE:
            provenance = chunk.provenance
            provenance.sources.extend(SOURCES[index % 4] for index in rows)
            provenance.source_rows.extend(2**64 - 1 if index % 4 == 3 else 100 + index for index in rows)
            provenance.seeds.extend(2**64 - 1 - index for index in rows)
            provenance.indices.extend(rows)
        if level == augmentation_pb2.PROVENANCE_LEVEL_FULL:
            provenance.transforms.extend(
                x for i in rows for x in ((float("nan"),) * 2 if i % 4 != 2 else (i / 2, float("nan")))
            )
            provenance.confidences.extend(0.5 if index % 4 == 3 else float("nan") for index in rows)
        return chunk

    def model(self) -> augmentation_pb2.PinnedModel:
        ref = model_pb2.ModelRef(name="digits-cvae", version="1.0", digest=DIGEST)
        return augmentation_pb2.PinnedModel(role="generator", model=ref, numerics=NUMERICS)

    def Augment(self, requests, context) -> Iterator[augmentation_pb2.AugmentResponse]:
        """Return as variant v of an image the image brightened by v + 1."""
        config = next(requests).config
        spec = sample_spec(model_pb2.ENCODING_UINT8)
        spec.dims[:] = [config.height, config.width, config.channels]
        header = augmentation_pb2.AugmentHeader(
            seed=config.seed if config.HasField("seed") else 77,
            variants=config.variants,
            policy=config.policy,
            sample_spec=spec,
            model=self.model(),
        )
        yield augmentation_pb2.AugmentResponse(header=header)
        at = config.start_index
        for request in requests:
            images = np.frombuffer(request.rows.data, np.uint8).reshape(request.rows.count, -1)
            made = np.stack([images + np.uint8(v + 1) for v in range(config.variants)], axis=1)
            count = len(images) * config.variants
            samples = sampling_pb2.SampleChunk(start_index=at * config.variants, count=count, data=made.tobytes())
            provenance = augmentation_pb2.RowProvenance(
                sources=[3] * count, source_rows=[0] * count, seeds=[header.seed] * count, indices=range(count)
            )
            at += len(images)
            yield augmentation_pb2.AugmentResponse(
                chunk=augmentation_pb2.RowChunk(samples=samples, provenance=provenance)
            )


def abort(context: grpc.ServicerContext, status) -> None:
    plain = rpc_status.to_status(status)
    context.abort_with_status(plain)


@contextmanager
def serving_plans(plans: FakePlans) -> Iterator[str]:
    """Serve on a free port with threads, and yield the address."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    augmentation_pb2_grpc.add_AugmentationServiceServicer_to_server(plans, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stopped = server.stop(None)
        plans.released.set()
        stopped.wait()
