"""ModelService: the catalog of models, as messages."""

from __future__ import annotations

import grpc

from fount.v1 import model_pb2, model_pb2_grpc
from service.caller import current_caller
from service.catalog import Catalog, Entry
from service.domain import ModelState
from service.errors import InvalidRequest, Violation
from service.rpc.fields import Violations, raise_violations
from service.rpc.input_rows import ROWS_BYTES
from service.rpc.paging import decode_token, encode_token, read_page_size

__all__ = ["ModelServicer"]

_STATES = {
    ModelState.COLD: model_pb2.Model.STATE_COLD,
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
        """Return one page of what the caller may sample."""
        wrong, after = Violations(), ""
        size = read_page_size(request.page_size, wrong)
        try:
            after = decode_token(request.page_token)
        except ValueError as error:
            wrong.add("page_token", str(error))
        raise_violations(wrong)
        entries = [entry for entry in self._catalog.entries() if current_caller().may(f"sample:{entry.name}")]
        names = [f"{entry.name} {entry.version}" for entry in entries]
        if after and after not in names:
            problem = "the catalog changed; list again from the first page"
            raise InvalidRequest((Violation(field="page_token", description=problem),))
        first = names.index(after) + 1 if after else 0
        page = entries[first : first + size]
        token = encode_token(names[first + size - 1]) if first + size < len(entries) else ""
        return model_pb2.ListModelsResponse(models=[_message(entry) for entry in page], next_page_token=token)

    async def GetModel(  # noqa: N802  # gRPC's name
        self, request: model_pb2.GetModelRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> model_pb2.GetModelResponse:
        """Return one version of a model."""
        current_caller().require(f"sample:{request.model.name}")
        entry = self._catalog.find(request.model.name, request.model.version, request.model.digest)
        return model_pb2.GetModelResponse(model=_message(entry))


def _message(entry: Entry) -> model_pb2.Model:
    message = model_pb2.Model.FromString(entry.model.card) if entry.model else model_pb2.Model()
    message.ref.name, message.ref.version = entry.name, entry.version
    message.state = _STATES[entry.state]
    message.state_reason = entry.reason
    message.is_default = entry.is_default
    takes_given = {model_pb2.OPERATION_DECODE, model_pb2.OPERATION_TRANSLATE}
    if takes_given & set(message.operations) or message.conditions:
        message.limits.max_given_bytes = ROWS_BYTES
    del message.numerics[:]
    message.numerics.extend(entry.numerics)
    return message
