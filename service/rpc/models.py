"""ModelService: the catalog, as messages."""

from __future__ import annotations

import base64
import binascii

import grpc

from fount.v1 import model_pb2, model_pb2_grpc
from service.caller import Caller, current_caller
from service.catalog import Catalog, Entry
from service.domain import ModelState
from service.errors import InvalidRequest, Violation

__all__ = ["ModelServicer"]

_PAGE_SIZE, _PAGE_SIZE_MAX = 100, 1000
_STATES = {
    ModelState.LOADING: model_pb2.Model.STATE_LOADING,
    ModelState.READY: model_pb2.Model.STATE_READY,
    ModelState.UNAVAILABLE: model_pb2.Model.STATE_UNAVAILABLE,
}


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Answers ListModels and GetModel."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def ListModels(  # noqa: N802  # gRPC's name
        self, request: model_pb2.ListModelsRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> model_pb2.ListModelsResponse:
        """One page of what the caller may sample."""
        after, size = _read_page(request)
        entries = [entry for entry in self._catalog.entries() if _may_see(current_caller(), entry)]
        names = [f"{entry.name} {entry.version}" for entry in entries]
        if after and after not in names:
            raise InvalidRequest((Violation(field="page_token", description="the catalog changed; begin again"),))
        first = names.index(after) + 1 if after else 0
        page = entries[first : first + size]
        more = first + size < len(entries)
        token = base64.urlsafe_b64encode(names[first + size - 1].encode()).decode() if more else ""
        return model_pb2.ListModelsResponse(models=[_message(entry) for entry in page], next_page_token=token)

    async def GetModel(  # noqa: N802  # gRPC's name
        self, request: model_pb2.GetModelRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> model_pb2.GetModelResponse:
        """One version."""
        current_caller().require(f"sample:{request.model.name}")
        entry = self._catalog.find(request.model.name, request.model.version, request.model.digest)
        return model_pb2.GetModelResponse(model=_message(entry))


def _may_see(caller: Caller, entry: Entry) -> bool:
    return caller.may(f"sample:{entry.name}")


def _read_page(request: model_pb2.ListModelsRequest) -> tuple[str, int]:
    violations = []
    if request.page_size < 0:
        violations.append(Violation(field="page_size", description=f"must not be negative, got {request.page_size}"))
    after = ""
    try:
        after = base64.b64decode(request.page_token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        violations.append(Violation(field="page_token", description="is not one this gateway gave"))
    if violations:
        raise InvalidRequest(tuple(violations))
    return after, min(request.page_size or _PAGE_SIZE, _PAGE_SIZE_MAX)


def _message(entry: Entry) -> model_pb2.Model:
    message = model_pb2.Model.FromString(entry.model.card) if entry.model else model_pb2.Model()
    message.ref.name, message.ref.version = entry.name, entry.version
    message.state = _STATES[entry.state]
    message.state_reason = entry.reason
    message.is_default = entry.is_default
    del message.numerics[:]
    message.numerics.extend(entry.numerics)
    return message
