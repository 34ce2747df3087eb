"""ReadingService, for runners alone: arrays of images in, features or class probabilities out."""

from __future__ import annotations

import time
from dataclasses import dataclass
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
from service.rpc.interceptor import current_request_id
from service.scheduler.inference import InferenceClient, RequestContext
from service.validation import Violations, raise_violations

__all__ = ["ReadingServicer"]

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]

_OPERATIONS = {
    model_pb2.OPERATION_CLASSIFY: Operation.CLASSIFY,
    model_pb2.OPERATION_EMBED: Operation.EMBED,
}
_IMAGE_DIMS = 4  # rows, height, width, channels


@dataclass(frozen=True, kw_only=True, eq=False)
class _CheckedRequest:
    operation: Operation
    target: Target
    model: ServedModel
    images: NDArray[np.uint8]
    priority: Priority


class ReadingServicer(runner_pb2_grpc.ReadingServiceServicer):
    """Answers Read.

    Args:
        catalog: what is served.
        inference: calls workers.
    """

    def __init__(self, catalog: Catalog, inference: InferenceClient) -> None:
        self._catalog, self._inference = catalog, inference

    async def Read(self, request: runner_pb2.ReadRequest, context: Context) -> runner_pb2.ReadResponse:  # noqa: N802
        """Classify or embed images."""
        checked = self._check(request)
        remaining_s = context.time_remaining()
        request_context = RequestContext(
            caller=current_caller(),
            deadline_unix_s=None if remaining_s is None else time.time() + remaining_s,
            request_id=current_request_id(),
            priority=checked.priority,
            retry_overloaded=False,
        )
        read = self._inference.embed if checked.operation is Operation.EMBED else self._inference.classify
        rows = await read(checked.target, checked.model, checked.images, request_context)
        return runner_pb2.ReadResponse(rows=_tensor(rows), numerics=checked.target.numerics)

    def _check(self, request: runner_pb2.ReadRequest) -> _CheckedRequest:
        """Check a request against the model it names."""
        caller = current_caller()
        caller.require("evaluate")
        is_interactive = request.priority == sampling_pb2.PRIORITY_INTERACTIVE
        if is_interactive:
            caller.require("priority:interactive")
        violations = Violations()
        operation, images = _operation(request, violations), _images(request.images, violations)
        if request.priority not in sampling_pb2.Priority.values():
            violations.add("priority", f"{request.priority} is not a Priority")
        try:
            ref = request.model
            entry = self._catalog.find(ref.name, ref.version, ref.digest)
            target, model = self._catalog.choose(entry, operation, digest=ref.digest, numerics=request.numerics)
        except InvalidRequest as error:
            raise_violations([*error.violations, *violations])
            raise
        except (NotReady, Retired):
            raise_violations(violations)
            raise
        _check_shape(images, model, violations)
        raise_violations(violations)
        priority = Priority.INTERACTIVE if is_interactive else Priority.BULK
        return _CheckedRequest(operation=operation, target=target, model=model, images=images, priority=priority)


def _operation(request: runner_pb2.ReadRequest, violations: Violations) -> Operation:
    if request.operation not in _OPERATIONS:
        description = f"must be OPERATION_CLASSIFY or OPERATION_EMBED, got {request.operation}"
        violations.add("operation", description)
    return _OPERATIONS.get(request.operation, Operation.CLASSIFY)


def _images(tensor: worker_pb2.Tensor, violations: Violations) -> NDArray[np.uint8]:
    """Return the images; none, with a violation, if the tensor holds something else."""
    dims = tuple(tensor.dims)
    size = np.prod(dims, dtype=object)
    if tensor.dtype != model_pb2.DTYPE_UINT8 or len(dims) != _IMAGE_DIMS or 0 in dims:
        description = f"must be UINT8 images of dims (n, H, W, C), got dtype {tensor.dtype} of dims {list(dims)}"
        violations.add("images", description)
    elif len(tensor.data) != size:
        description = f"dims {list(dims)} are {size} bytes, got {len(tensor.data)}"
        violations.add("images.data", description)
    else:
        return np.frombuffer(tensor.data, np.uint8).reshape(dims)
    return np.zeros((0, 0, 0, 0), np.uint8)


def _check_shape(images: NDArray[np.uint8], model: ServedModel, violations: Violations) -> None:
    if len(images) and images.shape[1:] != model.sample_dims:
        given, accepted = ("×".join(map(str, each)) for each in (images.shape[1:], model.sample_dims))
        description = f"are {given}, and {model.key.name} reads {accepted}"
        violations.add("images.dims", description)


def _tensor(rows: NDArray[np.float32]) -> worker_pb2.Tensor:
    data = rows.astype(Dtype.FLOAT32.numpy, copy=False).tobytes()
    return worker_pb2.Tensor(dims=rows.shape, dtype=model_pb2.DTYPE_FLOAT32, data=data)
