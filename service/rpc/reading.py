"""ReadingService, for runners alone: arrays of images in, features or class probabilities out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import grpc
import numpy as np
from numpy.typing import NDArray

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
from service.scheduler.inference import InferenceClient

__all__ = ["ReadingServicer"]

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]

_OPERATIONS = {
    model_pb2.OPERATION_CLASSIFY: Operation.CLASSIFY,
    model_pb2.OPERATION_EMBED: Operation.EMBED,
}
_IMAGE_DIMS = 4  # rows, height, width, channels


class ReadingServicer(runner_pb2_grpc.ReadingServiceServicer):
    """Answers Read."""

    def __init__(self, catalog: Catalog, inference: InferenceClient) -> None:
        self._catalog, self._inference = catalog, inference

    async def Read(self, request: runner_pb2.ReadRequest, context: Context) -> runner_pb2.ReadResponse:  # noqa: N802
        """Classify or embed images."""
        caller = current_caller()
        caller.require("evaluate")
        priority = Priority.BULK
        if request.priority == sampling_pb2.PRIORITY_INTERACTIVE:
            caller.require("priority:interactive")
            priority = Priority.INTERACTIVE
        on_behalf = request_context(context, priority)
        operation, images, target, model = await read_when_loaded(lambda: self._check(request), self._catalog, context)
        read = self._inference.embed if operation is Operation.EMBED else self._inference.classify
        rows = await read(target, model, images, on_behalf)
        data = rows.astype(Dtype.FLOAT32.numpy, copy=False).tobytes()
        tensor = worker_pb2.Tensor(dims=rows.shape, dtype=model_pb2.DTYPE_FLOAT32, data=data)
        return runner_pb2.ReadResponse(rows=tensor, numerics=target.numerics)

    async def _check(self, request: runner_pb2.ReadRequest) -> tuple[Operation, NDArray[np.uint8], Target, ServedModel]:
        """Check every field, and the images against the model."""
        violations, ref = Violations(), request.model
        operation = _OPERATIONS.get(request.operation, Operation.CLASSIFY)
        if request.operation not in _OPERATIONS:
            violations.add("operation", f"must be OPERATION_CLASSIFY or OPERATION_EMBED, got {request.operation}")
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
        raise_violations(violations)
        return operation, images, target, model


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
