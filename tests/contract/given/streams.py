"""A gateway over in-memory models with a latent space and scores, and streams to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fount.v1 import (
    latent_pb2,
    latent_pb2_grpc,
    model_pb2,
    sampling_pb2,
    scoring_pb2,
    scoring_pb2_grpc,
    translation_pb2,
    translation_pb2_grpc,
)
from service.domain import Operation
from service.workers.memory import MemoryPool, memory_model
from tests.contract.gateways import Running

FULL = frozenset({Operation.SAMPLE, Operation.ENCODE, Operation.DECODE, Operation.SCORE, Operation.CLASSIFY})
TEXT = frozenset({Operation.SAMPLE, Operation.SCORE})
EXTRAS = {"latent_dim": 2, "score_columns": ("a", "b"), "directions": {"tall": (1.0, 0.0), "huge": (3e38, 0.0)}}
_SERVICES = (
    (latent_pb2, latent_pb2_grpc.LatentServiceStub),
    (scoring_pb2, scoring_pb2_grpc.ScoringServiceStub),
    (translation_pb2, translation_pb2_grpc.TranslationServiceStub),
)
RPCS = ("Encode", "Decode", "Reconstruct", "Interpolate", "Vary", "Score", "Classify")


def pool_of_models() -> MemoryPool:
    """Models of 2×3 pixels with and without classes, that only sample, or in steps; of points; and of text."""
    return MemoryPool(
        models=[
            memory_model("plain", labels=(), operations=FULL - {Operation.CLASSIFY}, **EXTRAS),
            memory_model("classes", operations=FULL, **EXTRAS),
            memory_model("points", labels=(), dims=(2,), operations=FULL - {Operation.CLASSIFY}, **EXTRAS),
            memory_model("sampler"),
            memory_model("steps", labels=(), operations=TEXT, draw_steps=20, score_columns=("a", "b")),
            memory_model("verse", labels=(), operations=TEXT, max_text_bytes=8, score_columns=("a",)),
        ]
    )


def ref(name: str = "plain") -> model_pb2.ModelRef:
    return model_pb2.ModelRef(name=name)


def rows(values: np.ndarray, labels: Iterable[int] = (), **fields: Any) -> sampling_pb2.InputRows:
    message = {"count": len(values), "data": values.tobytes(), "labels": labels}
    if values.dtype == np.float32:
        message["dtype"] = model_pb2.DTYPE_FLOAT32
    return sampling_pb2.InputRows(**message | fields)


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 3, 1), dtype=np.uint8)


def requests(rpc: str, config: dict[str, Any], *messages: sampling_pb2.InputRows) -> list[Any]:
    package = next(each for each, _ in _SERVICES if hasattr(each, f"{rpc}Request"))
    request, of_config = getattr(package, f"{rpc}Request"), getattr(package, f"{rpc}Config")
    first = request(config=of_config(**{"model": ref()} | config))
    return [first, *(request(rows=message) for message in messages)]


def method(running: Running, rpc: str) -> Any:
    stub = next(stub for each, stub in _SERVICES if hasattr(each, f"{rpc}Request"))
    return getattr(stub(running.channel), rpc)


async def answer(running: Running, rpc: str, config: dict[str, Any], *messages: sampling_pb2.InputRows):
    """The header and the results of a stream: raw bytes as an array, if they are not PNG."""
    responses = [each async for each in method(running, rpc)(iter(requests(rpc, config, *messages)), timeout=20)]
    header, chunks = responses[0].header, [each.chunk for each in responses[1:]]
    spec = header.sample_spec if hasattr(header, "sample_spec") else header.stream.sample_spec
    dtype = np.float32 if spec.dtype == model_pb2.DTYPE_FLOAT32 else np.uint8
    data = b"".join(chunk.data for chunk in chunks)
    return header, chunks, np.frombuffer(data, dtype).reshape(-1, *spec.dims)


async def results(running: Running, rpc: str, config: dict[str, Any], *messages: sampling_pb2.InputRows) -> np.ndarray:
    return (await answer(running, rpc, config, *messages))[2]


async def refused(running: Running, rpc: str, *messages: Any, metadata: Any = None) -> grpc.aio.AioRpcError:
    """The error that ends a stream.

    grpc.aio loses the status of a call that ends while it writes, and reports an error of its own: tried again.
    """
    while True:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            async for _ in method(running, rpc)(iter(messages), timeout=20, metadata=metadata):
                pass
        if not (error.value.details() or "").startswith("Internal error from Core"):
            return error.value


def fields_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The wrong fields that a refusal names."""
    for detail in rpc_status.from_call(error).details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            return {each.field: each.description for each in bad.field_violations}
    return {}
