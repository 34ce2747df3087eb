"""The workers as a runner reaches them: a client of the gateway, which implements `service.evaluation.workers.Workers`.

Samples are drawn with the public SamplingService, as any client draws them; images are read with the private
ReadingService. The client resumes and repeats broken calls; an error that remains is raised as the gateway's own error
for the same cause, from which the pipeline decides whether to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from fount import errors as client_errors
from fount.client import aio
from fount.client.calls import AioCalls
from fount.client.loop_channel import LoopChannel
from fount.retry import RetryPolicy
from fount.runner.v1 import runner_pb2, runner_pb2_grpc
from fount.v1 import model_pb2, sampling_pb2
from fount.worker.v1 import worker_pb2
from service.calls import Labels
from service.domain import Operation, Parameters
from service.errors import FountServiceError, NotReady, Overloaded, Retired, UnknownName, Violation, WorkerFault
from service.evaluation.specification import PinnedModel
from service.evaluation.workers import DrawnSamples
from service.rpc.fields import reference_to_message

__all__ = ["RemoteWorkers"]

_MESSAGE_BYTES = 3 << 20  # of images; a gateway accepts 4 MiB
_MESSAGE_ROWS = 1024  # so that wide features fit into the response
_SCORED_ROWS = 8  # of a message, each of which may take seconds: all of them have to fit into the timeout
_MESSAGES_AT_ONCE = 4  # of one array: one is read while others are transferred
_TIMEOUT_S = 60.0  # for a message, or between two of a stream
_OVERLOADED_S = 1.0  # where the gateway names no delay

_OPERATIONS = {
    Operation.CLASSIFY: model_pb2.OPERATION_CLASSIFY,
    Operation.EMBED: model_pb2.OPERATION_EMBED,
    Operation.SCORE: model_pb2.OPERATION_SCORE,
}


class RemoteWorkers:
    """The workers of the gateway at `server`, HOST:PORT."""

    def __init__(self, server: str, *, retry: RetryPolicy | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        retry = replace(retry or RetryPolicy(), waits_while_loading=False)  # an evaluation reports what it waits for
        self._client = aio.Client(server, timeout_s=timeout_s, retry=retry)
        self._channel = LoopChannel(self._client.server)
        self._calls = AioCalls(self._client.server, timeout_s, retry, self._channel)
        self._reading = runner_pb2_grpc.ReadingServiceStub(self._channel.for_stubs)

    async def sample(
        self,
        model: PinnedModel,
        *,
        seed: int,
        start_index: int,
        count: int,
        labels: NDArray[np.uint32] | None,
        parameters: Parameters,
    ) -> DrawnSamples:
        """See `Workers`."""
        given = {
            each.name: value for each in fields(parameters) if (value := getattr(parameters, each.name)) is not None
        }
        images: NDArray[np.uint8] | None = None
        failed = np.zeros(count, bool)
        stream = self._client.stream(
            f"{model.name}:{model.version}",
            count=count,
            start_index=start_index,
            seed=seed,
            labels=labels,
            digest=model.digest,
            numerics=model.numerics,
            encoding="uint8",
            priority="bulk",
            **given,
        )
        async with _as_service_errors(), aclosing(stream) as chunks:
            async for chunk in chunks:
                if chunk.samples is None or chunk.samples.dtype != np.uint8:
                    raise WorkerFault("the gateway sent samples that are not bytes")
                if images is None:
                    images = np.zeros((count, *chunk.samples.shape[1:]), np.uint8)
                row = chunk.start_index - start_index
                images[row : row + chunk.count] = chunk.samples
                failed[[error.index - start_index for error in chunk.errors]] = True
        if images is None:
            raise WorkerFault(f"the gateway sent none of {count} samples")
        return DrawnSamples(images=images, failed=failed)

    async def embed(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Workers`."""
        return await self._read(model, Operation.EMBED, images)

    async def classify(self, model: PinnedModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Workers`."""
        return await self._read(model, Operation.CLASSIFY, images)

    async def score(
        self, model: PinnedModel, images: NDArray[np.uint8], *, seed: int, start_index: int, labels: Labels | None
    ) -> NDArray[np.float32]:
        """See `Workers`."""
        given = runner_pb2.ReadRequest(seed=seed, start_index=start_index, labels=labels)
        return await self._read(model, Operation.SCORE, images, given)

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()
        await self._channel.close()

    async def _read(
        self,
        model: PinnedModel,
        operation: Operation,
        images: NDArray[np.uint8],
        given: runner_pb2.ReadRequest | None = None,
    ) -> NDArray[np.float32]:
        """Read all images, with a few messages in flight; `given` has labels and addresses of all rows."""
        if not len(images):
            return np.zeros((0, 0), np.float32)
        most = _SCORED_ROWS if operation is Operation.SCORE else _MESSAGE_ROWS
        message_rows = max(1, min(most, _MESSAGE_BYTES // max(1, images[0].nbytes)))
        slots = asyncio.Semaphore(_MESSAGES_AT_ONCE)

        async def read(first: int) -> NDArray[np.float32]:
            part = slice(first, first + message_rows)
            request = runner_pb2.ReadRequest()
            if given is not None:
                labels = given.labels[part]
                request = runner_pb2.ReadRequest(seed=given.seed, start_index=given.start_index + first, labels=labels)
            async with slots:
                return await self._read_message(request, model, operation, images[part])

        tasks: list[asyncio.Task[NDArray[np.float32]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(read(first)) for first in range(0, len(images), message_rows)]
        except* FountServiceError as several:
            raise several.exceptions[0] from several
        rows = [task.result() for task in tasks]
        if len({each.shape[1:] for each in rows}) > 1:
            raise WorkerFault("the gateway returned rows of several widths")
        return np.concatenate(rows)

    async def _read_message(
        self, request: runner_pb2.ReadRequest, model: PinnedModel, operation: Operation, images: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Complete a request, which may have labels and addresses, and send it."""
        request.MergeFrom(
            runner_pb2.ReadRequest(
                model=reference_to_message(model),
                numerics=model.numerics,
                operation=_OPERATIONS[operation],
                images=worker_pb2.Tensor(dims=images.shape, dtype=model_pb2.DTYPE_UINT8, data=images.tobytes()),
                priority=sampling_pb2.PRIORITY_BULK,
            )
        )
        async with _as_service_errors():
            response = await self._calls.unary(self._reading.Read, request)
        return _rows(response.rows, len(images))


def _rows(tensor: worker_pb2.Tensor, count: int) -> NDArray[np.float32]:
    dims = tuple(tensor.dims)
    if tensor.dtype != model_pb2.DTYPE_FLOAT32 or len(dims) != 2 or dims[0] != count:
        raise WorkerFault(f"the gateway returned dtype {tensor.dtype} of dims {list(dims)} for {count} images")
    try:
        return np.frombuffer(tensor.data, "<f4").astype(np.float32).reshape(dims)
    except ValueError as error:
        raise WorkerFault(f"the gateway's rows do not match their dims: {error}") from error


@asynccontextmanager
async def _as_service_errors() -> AsyncIterator[None]:
    """Raise the client's errors as those that `Workers` names."""
    try:
        yield
    except client_errors.FountError as error:
        raise _service_error(error) from error


def _service_error(error: client_errors.FountError) -> FountServiceError:
    message = str(error)
    match error:
        case client_errors.Overloaded():
            return Overloaded(message, retry_after_s=error.retry_after_s or _OVERLOADED_S)
        case client_errors.ServerUnavailable() | client_errors.DeadlineExceeded() | client_errors.Cancelled():
            return NotReady(message)
        case client_errors.FailedPrecondition():
            return Retired(message)
        case client_errors.NotFound():
            return UnknownName((Violation(field="model", description=message, unknown=True),))
        case _:
            return WorkerFault(message)
