"""The worker: the bytes of a WorkerRequest enter, the bytes of a WorkerReply leave.

TorchServe fails all calls of a batch together and turns a handler's exception into UNAVAILABLE, which clients retry; so
nothing is raised here. Every item gets a value or a status of its own, in the order of the request.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self, cast

from google.protobuf.message import DecodeError

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card
from handlers.cards.message import card_to_proto
from handlers.execution.batches import BatchRunner, Work
from handlers.execution.errors import ItemError, exit_process, is_out_of_memory
from handlers.execution.network import FamilyBuilder, Network, Operation, StepPlan
from handlers.execution.rows import GivenRows, ManipulationRows
from handlers.family import Deadline, Draw
from handlers.loading.load import Engine, LoadedModel, load_model
from handlers.models import load_family
from handlers.worker.model_lock import Call, ModelLock
from handlers.worker.registry import read_addresses
from handlers.worker.replies import add_outcome, status_of
from handlers.worker.requests import read_draw, read_work
from handlers.worker.tensors import CallCapacity

__all__ = ["SOCKETS", "Worker"]

SOCKETS = "FOUNT_WORKER_SOCKETS"
"""The environment variable that names the folder in which the workers of a TorchServe register their addresses."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One model in one process.

    Attributes:
        model: the loaded model, or why it was not loaded.
        sockets: the folder in which workers register their addresses; None when they serve through TorchServe alone.
        lock: held by the call that runs.
    """

    model: LoadedModel
    sockets: Path | None = None
    lock: ModelLock = field(default_factory=ModelLock)

    @classmethod
    def load(
        cls,
        folder: Path,
        environment: Mapping[str, str] = os.environ,
        gpu_id: int | None = None,
        build_family: FamilyBuilder = load_family,
    ) -> Self:
        """Load an unpacked archive as `load_model` does; one that cannot serve answers UNAVAILABLE with the reason."""
        sockets = environment.get(SOCKETS)
        model = load_model(folder, environment, gpu_id, build_family)
        return cls(model=model, sockets=Path(sockets) if sockets else None)

    def handle(self, request_bytes: bytes | None, call: Call | None = None) -> bytes:
        """Answer one call, after those that arrived before it. Never raises.

        Args:
            request_bytes: a WorkerRequest; None when the call carried none.
            call: by which it can be cancelled; None when it cannot.

        Returns:
            A WorkerReply.
        """
        arrived = time.perf_counter()
        try:
            if request_bytes is None:
                raise DecodeError("the call carried no bytes")
            request = worker_pb2.WorkerRequest.FromString(request_bytes)
        except DecodeError as error:
            refusal = ItemError("REQUEST_UNREADABLE", f"not a WorkerRequest: {error}; send one")
            return self._refuse(1, refusal).SerializeToString()
        try:
            return self._answer(request, call or Call(), arrived).SerializeToString()
        except ItemError as error:  # of what all items share
            refusal = error
        except Exception as error:  # noqa: BLE001 - the last guard: TorchServe must never see an exception
            _LOG.exception("request %r failed as a whole", request.request_id)
            refusal = _describe_failure(error, request.request_id)
        return self._refuse(len(request.items), refusal).SerializeToString()

    def _answer(self, request: worker_pb2.WorkerRequest, call: Call, arrived: float) -> worker_pb2.WorkerReply:
        if request.operation == model_pb2.OPERATION_DESCRIBE:
            reply = self._refuse(len(request.items), ItemError("KIND_WRONG", "DESCRIBE takes no items; send none"))
            with self.lock.hold(call):  # so that its answer shows that the worker is not stuck in another call
                reply.description.CopyFrom(self.describe())
            return reply
        if self.model.engine is None:
            raise ItemError("MODEL_UNAVAILABLE", self.model.reason)
        self._check_addressee(request, self.model.engine.network.card)
        return self._run(request, self.model.engine, call, arrived)

    def _check_addressee(self, request: worker_pb2.WorkerRequest, card: Card) -> None:
        """Refuse a request that was meant for a worker of another model or other numerics."""
        operation = request.operation
        if operation not in [model_pb2.Operation.Value(f"OPERATION_{name}") for name in card.operations]:
            offered = ", ".join(card.operations)
            reason, message = "OPERATION_NOT_SUPPORTED", f"operation {operation} is not one of {offered}"
        elif request.numerics and request.numerics != self._numerics_id:
            found = f"this worker's numerics are {self._numerics_id}"
            reason, message = "NUMERICS_MISMATCH", f"{found}, not {request.numerics}"
        elif request.model_digest and request.model_digest != self._model_digest:
            found = f"this worker has loaded {self._model_digest}"
            reason, message = "DIGEST_MISMATCH", f"{found}, not {request.model_digest}"
        else:
            return
        raise ItemError(reason, f"{message}; send the request to another worker")

    def _run(
        self, request: worker_pb2.WorkerRequest, engine: Engine, call: Call, arrived: float
    ) -> worker_pb2.WorkerReply:
        with self.lock.hold(call):
            items, runner = _run_items(request, engine, call)
        reply = self._reply([])
        for item in items:
            add_outcome(reply, item, request.request_id)
        reply.timings.queue_s = (runner.first_batch_at or time.perf_counter()) - arrived
        reply.timings.compute_s = runner.compute_s
        reply.timings.batch_sizes.extend(runner.batch_sizes)
        return reply

    def _refuse(self, items: int, error: ItemError) -> worker_pb2.WorkerReply:
        return self._reply([worker_pb2.WorkerOutcome(status=status_of(error))] * items)

    def _reply(self, outcomes: list[worker_pb2.WorkerOutcome]) -> worker_pb2.WorkerReply:
        return worker_pb2.WorkerReply(
            items=outcomes,
            timings=worker_pb2.Timings(),
            numerics=self._numerics_id,
            model_digest=self._model_digest,
        )

    def describe(self) -> worker_pb2.Description:
        """Describe what is loaded, and which workers can be called directly."""
        model = self.model
        if model.card is not None:
            described = card_to_proto(model.card, self._model_digest, model.reason)
        else:
            ref = model_pb2.ModelRef(digest=self._model_digest)
            if model.contents is not None:
                ref.name, ref.version = model.contents.name, model.contents.version
            described = model_pb2.Model(ref=ref, state=model_pb2.Model.STATE_UNAVAILABLE, state_reason=model.reason)
        description = worker_pb2.Description(
            model=described,
            numerics=self._numerics_id,
            numerics_details=model.numerics.details if model.numerics else (),
        )
        if model.engine:
            profile = model.engine.profile
            seconds = [profile.seconds_per_batch.get(size, 0.0) for size in profile.exec_batch_sizes]
            description.exec_batch_sizes.extend(profile.exec_batch_sizes)
            description.exec_batch_seconds.extend(seconds)
        for pid, address in (read_addresses(self.sockets) if self.sockets else {}).items():
            description.processes.add(pid=pid, address=address)
        return description

    @property
    def _numerics_id(self) -> str:
        return self.model.numerics.id if self.model.numerics else ""

    @property
    def _model_digest(self) -> str:
        return self.model.contents.model_digest if self.model.contents else ""


def _run_items(
    request: worker_pb2.WorkerRequest, engine: Engine, call: Call
) -> tuple[list[Work | ItemError], BatchRunner]:
    """Run the items of a request; only with the model's lock, because they call the family's code."""
    card = engine.network.card
    operation = cast("Operation", model_pb2.Operation.Name(request.operation).removeprefix("OPERATION_"))
    unix_s = request.deadline_unix_ms / 1000 if request.deadline_unix_ms else None
    deadline = Deadline(unix_s=unix_s, is_cancelled=lambda: call.is_cancelled)
    draw, steps = read_draw(request.parameters, card), None
    if operation in ("SAMPLE", "TRANSLATE"):
        first = request.items[0].carry.next_step if request.items else 0  # all items must be at the same step
        steps = engine.network.plan_steps(operation, draw, first, request.step_limit or None)
    items = _read_items(request, operation, engine.network, steps)
    works = [item for item in items if isinstance(item, Work)]
    runner = BatchRunner(
        compute=partial(engine.network.run, operation, draw=draw, deadline=deadline, steps=steps),
        times=engine.times[operation],
        deadline=deadline,
        request_id=request.request_id,
        on_device_lost=partial(exit_process, "the device is lost"),
        share=_share(operation, works, draw, steps, card),
        learns=operation != "SAMPLE" or not any(isinstance(work.rows, GivenRows) for work in works),
    )
    runner.run(works)
    return items, runner


def _share(operation: Operation, works: list[Work], draw: Draw, steps: StepPlan | None, card: Card) -> float:
    """Compute the work of a row relative to those that batches were timed with, without parameters.

    Images to transform vary in size, and scores in their importance samples and steps.
    """
    if steps:
        return steps.share
    if operation == "SCORE":
        known = card.parameters.get("steps")
        usual = (known.default if known else None) or card.draw_steps
        return (draw.importance_samples or 1) * (draw.steps or usual) / usual
    if not works or not isinstance(works[0].rows, ManipulationRows):
        return 1.0
    height, width, channels = works[0].rows.images.shape[1:]
    usual = math.prod(card.sample.shape)
    return float(height * width * channels / usual)


def _read_items(
    request: worker_pb2.WorkerRequest, operation: Operation, network: Network, steps: StepPlan | None
) -> list[Work | ItemError]:
    capacity = CallCapacity()
    items: list[Work | ItemError] = []
    for item in request.items:
        try:
            work = read_work(item, operation, network.card, capacity, steps, is_conditioned=network.is_conditioned)
            items.append(work)
        except ItemError as error:
            items.append(error)
    return items


def _describe_failure(error: Exception, request_id: str) -> ItemError:
    if is_out_of_memory(error):
        return ItemError("OUT_OF_MEMORY", "the worker has not enough memory for this call; request fewer rows")
    return ItemError("WORKER_FAILED", f"the worker failed; its log has more under request {request_id!r}")
