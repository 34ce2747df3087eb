"""The worker: bytes of a WorkerRequest in, bytes of a WorkerReply out, whatever happens.

TorchServe fails batch mates together and turns a handler's exception into UNAVAILABLE, which clients try again; so
nothing is raised here. Every item gets a value or a status of its own, in the order of the request.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, cast

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.cards.card import Card
from handlers.execution.batches import BatchRunner, Outcome, Work
from handlers.execution.errors import exit_process, is_out_of_memory
from handlers.execution.network import FamilyBuilder, Network, Operation
from handlers.execution.rows import ManipulationRows
from handlers.execution.stepping import ALL_STEPS, StepPlan
from handlers.family import Deadline, Draw
from handlers.loading.load import Engine, LoadedModel, load_model
from handlers.models import load_family
from handlers.statuses import status_of
from handlers.worker.describe import card_to_proto
from handlers.worker.items import Budget, ItemError, add_outcome, read_draw, read_work

__all__ = ["Worker"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One model in one process.

    Attributes:
        model: what was loaded, or why it was not.
    """

    model: LoadedModel

    @classmethod
    def load(
        cls,
        folder: Path,
        environment: Mapping[str, str] = os.environ,
        gpu_id: int | None = None,
        build_family: FamilyBuilder = load_family,
    ) -> Self:
        """Load an unpacked archive; a worker whose model cannot serve answers UNAVAILABLE and says why.

        Args:
            folder: where the archive was unpacked.
            environment: `FOUNT_` settings, see `settings_from_environment`.
            gpu_id: the CUDA device TorchServe assigned; None is the CPU.
            build_family: builds a family's module from its name and configuration.
        """
        return cls(model=load_model(folder, environment, gpu_id, build_family))

    @property
    def is_ready(self) -> bool:
        """Whether it can serve."""
        return self.model.engine is not None

    def handle(self, request_bytes: bytes | None) -> bytes:
        """Answer one call. Never raises.

        Args:
            request_bytes: a WorkerRequest; None when the call carried none.

        Returns:
            A WorkerReply.
        """
        arrived = time.perf_counter()
        try:
            if request_bytes is None:
                raise DecodeError("the call carried no bytes")
            request = worker_pb2.WorkerRequest.FromString(request_bytes)
        except DecodeError as error:
            status = status_of(
                code_pb2.INVALID_ARGUMENT, "REQUEST_UNREADABLE", f"not a WorkerRequest: {error}; send one"
            )
            return self._reply([worker_pb2.WorkerOutcome(status=status)]).SerializeToString()
        try:
            return self._answer(request, arrived).SerializeToString()
        except Exception as error:  # noqa: BLE001 - the last guard: TorchServe must never see an exception
            _LOG.exception("request %r failed as a whole", request.request_id)
            return self._refuse(request, _status_of_failure(error, request.request_id)).SerializeToString()

    def _answer(self, request: worker_pb2.WorkerRequest, arrived: float) -> worker_pb2.WorkerReply:
        if request.operation == model_pb2.OPERATION_DESCRIBE:
            status = status_of(code_pb2.INVALID_ARGUMENT, "KIND_WRONG", "DESCRIBE takes no items; send none")
            reply = self._refuse(request, status)
            reply.description.CopyFrom(self._describe())
            return reply
        if (refusal := self._find_refusal(request)) is not None:
            return self._refuse(request, refusal)
        card, engine = cast("Card", self.model.card), cast("Engine", self.model.engine)
        try:
            return self._run(request, card, engine, arrived)
        except ItemError as error:  # of the parameters, which all items share
            return self._refuse(request, error.status)

    def _find_refusal(self, request: worker_pb2.WorkerRequest) -> status_pb2.Status | None:
        """Find what makes every item impossible."""
        model, wanted = self.model, request.operation
        if model.engine is None or model.card is None:
            return status_of(code_pb2.UNAVAILABLE, "MODEL_UNAVAILABLE", model.reason)
        if wanted not in [model_pb2.Operation.Value(f"OPERATION_{name}") for name in model.card.operations]:
            message = f"operation {wanted} is not one of {', '.join(model.card.operations)}; ask a model that has it"
            return status_of(code_pb2.FAILED_PRECONDITION, "OPERATION_NOT_SUPPORTED", message)
        if request.numerics and request.numerics != self._numerics_id:
            message = f"this worker's numerics are {self._numerics_id}, not {request.numerics}; ask one that has them"
            return status_of(code_pb2.FAILED_PRECONDITION, "NUMERICS_MISMATCH", message)
        if request.model_digest and request.model_digest != self._model_digest:
            message = f"this worker has loaded {self._model_digest}, not {request.model_digest}; ask one that has it"
            return status_of(code_pb2.FAILED_PRECONDITION, "DIGEST_MISMATCH", message)
        return None

    def _run(
        self, request: worker_pb2.WorkerRequest, card: Card, engine: Engine, arrived: float
    ) -> worker_pb2.WorkerReply:
        operation = cast("Operation", model_pb2.Operation.Name(request.operation).removeprefix("OPERATION_"))
        deadline = Deadline(unix_s=request.deadline_unix_ms / 1000 if request.deadline_unix_ms else None)
        draw = read_draw(request.parameters, card)
        step_plan = _read_cutting(request, operation, engine.network, draw)
        read = _read_items(request, operation, card, step_plan)
        step_range = step_plan.step_range if step_plan else ALL_STEPS
        works = [work for work in read if isinstance(work, Work)]
        runner = BatchRunner(
            compute=partial(engine.network.run, operation, draw=draw, deadline=deadline, step_range=step_range),
            times=engine.times[operation],
            deadline=deadline,
            request_id=request.request_id,
            on_device_lost=partial(exit_process, "the device is lost"),
            share=step_plan.share if step_plan else _share_of_images(works, card),
        )
        outcomes = iter(runner.run(works))
        answers = [next(outcomes) if isinstance(work, Work) else work for work in read]
        reply = self._reply([])
        for answer in answers:
            add_outcome(reply, answer, request.request_id)
        reply.timings.queue_s = (runner.first_batch_at or time.perf_counter()) - arrived
        reply.timings.compute_s = runner.compute_s
        reply.timings.batch_sizes.extend(runner.batch_sizes)
        return reply

    def _refuse(self, request: worker_pb2.WorkerRequest, status: status_pb2.Status) -> worker_pb2.WorkerReply:
        return self._reply([worker_pb2.WorkerOutcome(status=status) for _ in request.items])

    def _reply(self, outcomes: list[worker_pb2.WorkerOutcome]) -> worker_pb2.WorkerReply:
        return worker_pb2.WorkerReply(
            items=outcomes,
            timings=worker_pb2.Timings(),
            numerics=self._numerics_id,
            model_digest=self._model_digest,
        )

    def _describe(self) -> worker_pb2.Description:
        model = self.model
        if model.card is not None:
            told = card_to_proto(model.card, self._model_digest, model.reason)
        else:
            ref = model_pb2.ModelRef(digest=self._model_digest)
            if model.contents is not None:
                ref.name, ref.version = model.contents.name, model.contents.version
            told = model_pb2.Model(ref=ref, state=model_pb2.Model.STATE_UNAVAILABLE, state_reason=model.reason)
        return worker_pb2.Description(
            model=told,
            numerics=self._numerics_id,
            exec_batch_sizes=model.engine.profile.exec_batch_sizes if model.engine else (),
            exec_batch_seconds=_batch_seconds(model.engine) if model.engine else (),
            numerics_details=model.numerics.details if model.numerics else (),
        )

    @property
    def _numerics_id(self) -> str:
        return self.model.numerics.id if self.model.numerics else ""

    @property
    def _model_digest(self) -> str:
        return self.model.contents.model_digest if self.model.contents else ""


def _batch_seconds(engine: Engine) -> list[float]:
    return [engine.profile.seconds_per_batch.get(size, 0.0) for size in engine.profile.exec_batch_sizes]


def _read_cutting(
    request: worker_pb2.WorkerRequest, operation: Operation, network: Network, draw: Draw
) -> StepPlan | None:
    """Say how a call cuts draws, all at the first item's step; None when it does not draw, or the model is not cut."""
    if operation != "SAMPLE":
        return None
    first = request.items[0].carry.next_step if request.items else 0
    return network.cut(draw, first, request.step_limit)


def _share_of_images(works: list[Work], card: Card) -> float:
    """Say how much work a row is, where images may be larger or smaller than those batches were timed with."""
    if not works or not isinstance(works[0].rows, ManipulationRows):
        return 1.0
    height, width, channels = works[0].rows.images.shape[1:]
    usual = card.sample.height * card.sample.width * card.sample.channels
    return float(height * width * channels / usual)


def _read_items(
    request: worker_pb2.WorkerRequest, operation: Operation, card: Card, step_plan: StepPlan | None
) -> list[Work | Outcome]:
    """Turn each item into work, or into the outcome it already has."""
    budget = Budget()
    read: list[Work | Outcome] = []
    for item in request.items:
        try:
            read.append(read_work(item, operation, card, budget, step_plan))
        except ItemError as error:
            read.append(Outcome(failure=error.status))
    return read


def _status_of_failure(error: Exception, request_id: str) -> status_pb2.Status:
    if is_out_of_memory(error):
        message = "the worker has not enough memory for this call; ask for fewer rows"
        return status_of(code_pb2.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", message)
    message = f"the worker failed; its log has more under request {request_id!r}"
    return status_of(code_pb2.INTERNAL, "WORKER_FAILED", message)
