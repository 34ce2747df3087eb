"""ReadingService, for runners alone: arrays of images in, features, class probabilities or scores out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import grpc
import numpy as np
from numpy.typing import NDArray

from fount.address import MAX_INDEX
from fount.runner.v1 import runner_pb2, runner_pb2_grpc
from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from service.caller import current_caller
from service.catalog import Catalog
from service.domain import Dtype, Operation, Priority, ServedModel, Target
from service.errors import InvalidRequest, NotReady, Retired
from service.rpc.fields import Violations, raise_violations
from service.rpc.interceptor import request_context
from service.rpc.loading import read_when_loaded
from service.scheduler.inference import GivenRows, InferenceClient
from service.scheduler.work import RequestContext

__all__ = ["ReadingServicer"]

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]

_OPERATIONS = {
    model_pb2.OPERATION_CLASSIFY: Operation.CLASSIFY,
    model_pb2.OPERATION_EMBED: Operation.EMBED,
    model_pb2.OPERATION_SCORE: Operation.SCORE,
}
_IMAGE_DIMS = 4  # rows, height, width, channels


class ReadingServicer(runner_pb2_grpc.ReadingServiceServicer):
    """Answers Read."""

    def __init__(self, catalog: Catalog, inference: InferenceClient) -> None:
        self._catalog, self._inference = catalog, inference

    async def Read(self, request: runner_pb2.ReadRequest, context: Context) -> runner_pb2.ReadResponse:  # noqa: N802
        """Classify, embed or score images."""
        caller = current_caller()
        caller.require("evaluate")
        if request.operation == model_pb2.OPERATION_SCORE:
            caller.require(f"score:{request.model.name}")
        priority = Priority.BULK
        if request.priority == sampling_pb2.PRIORITY_INTERACTIVE:
            caller.require("priority:interactive")
            priority = Priority.INTERACTIVE
        on_behalf = request_context(context, priority)
        operation, images, target, model = await read_when_loaded(lambda: self._check(request), self._catalog, context)
        match operation:
            case Operation.SCORE:
                rows = await self._score(request, target, model, images, on_behalf)
            case Operation.EMBED:
                rows = await self._inference.embed(target, model, images, on_behalf)
            case _:
                rows = await self._inference.classify(target, model, images, on_behalf)
        data = rows.astype(Dtype.FLOAT32.numpy, copy=False).tobytes()
        tensor = worker_pb2.Tensor(dims=rows.shape, dtype=model_pb2.DTYPE_FLOAT32, data=data)
        return runner_pb2.ReadResponse(rows=tensor, numerics=target.numerics)

    async def _score(
        self,
        request: runner_pb2.ReadRequest,
        target: Target,
        model: ServedModel,
        images: NDArray[np.uint8],
        context: RequestContext,
    ) -> NDArray[np.float32]:
        """Score images with the defaults of the model's card; NaN where the worker failed on a row."""
        given = GivenRows(
            rows=images,
            labels=np.array(request.labels, np.uint32) if request.labels else None,
            seed=request.seed,
            indices=np.uint64(request.start_index) + np.arange(len(images), dtype=np.uint64),
        )
        scores, failures = await self._inference.score(target, model, given, model.default_parameters, context)
        scores[list(failures)] = np.nan
        return scores

    async def _check(self, request: runner_pb2.ReadRequest) -> tuple[Operation, NDArray[np.uint8], Target, ServedModel]:
        """Check every field, and the images against the model."""
        violations, ref = Violations(), request.model
        operation = _OPERATIONS.get(request.operation, Operation.CLASSIFY)
        if request.operation not in _OPERATIONS:
            known = "OPERATION_CLASSIFY, OPERATION_EMBED or OPERATION_SCORE"
            violations.add("operation", f"must be {known}, got {request.operation}")
        images = _images(request.images, violations)
        if request.priority not in sampling_pb2.Priority.values():
            violations.add("priority", f"{request.priority} is not a Priority")
        try:
            entry = self._catalog.find(ref.name, ref.version, ref.digest)
            target, model = self._catalog.choose(entry, operation, digest=ref.digest, numerics=request.numerics)
        except InvalidRequest as error:
            raise_violations([*error.violations, *violations])
            raise
        except (NotReady, Retired):
            raise_violations(violations)
            raise
        if len(images) and images.shape[1:] != model.sample_dims:
            given, accepted = ("×".join(map(str, each)) for each in (images.shape[1:], model.sample_dims))
            violations.add("images.dims", f"are {given}, and {model.key.name} reads {accepted}")
        _check_labels(request, operation, len(images), model, violations)
        raise_violations(violations)
        return operation, images, target, model


def _check_labels(
    request: runner_pb2.ReadRequest, operation: Operation, rows: int, model: ServedModel, violations: Violations
) -> None:
    labels = request.labels
    if request.start_index > MAX_INDEX - rows:
        violations.add("start_index", f"must be at least {rows} rows below 2^64, got {request.start_index}")
    if not labels:
        return
    if operation is not Operation.SCORE:
        violations.add("labels", f"are for OPERATION_SCORE alone, got {len(labels)}")
    elif len(labels) != rows:
        violations.add("labels", f"must be one for each of {rows} rows, got {len(labels)}")
    elif max(labels) >= len(model.labels):
        violations.add("labels", f"must be below {len(model.labels)}, got {max(labels)}")


def _images(tensor: worker_pb2.Tensor, violations: Violations) -> NDArray[np.uint8]:
    """Return the images; none, with a violation, if the tensor holds something else."""
    dims = tuple(tensor.dims[: _IMAGE_DIMS + 1])
    size = math.prod(dims)
    if tensor.dtype != model_pb2.DTYPE_UINT8 or len(dims) != _IMAGE_DIMS or min(dims) < 1:
        given = list(dims) if len(dims) <= _IMAGE_DIMS else f"{len(tensor.dims)} numbers"
        description = f"must be UINT8 images of dims (n, H, W, C), got dtype {tensor.dtype} of dims {given}"
        violations.add("images", description)
    elif len(tensor.data) != size:
        violations.add("images.data", f"dims {list(dims)} are {size} bytes, got {len(tensor.data)}")
    else:
        return np.frombuffer(tensor.data, np.uint8).reshape(dims)
    return np.zeros((0, 0, 0, 0), np.uint8)
