"""Fount: reproducible samples from trained generators, served over gRPC.

`Client` (or `aio.Client` for asyncio) sends requests to a gateway and returns arrays with labels, seed and provenance.
Names are imported on first use, so that a worker can import `fount.address` without loading a gRPC client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fount.augmentation.plan import PlanInfo as PlanInfo
    from fount.augmentation.rows import RowBatch as RowBatch
    from fount.client import aio as aio
    from fount.client.sync import Client as Client
    from fount.evaluation.types import EvaluationInfo as EvaluationInfo
    from fount.sampling.types import Chunk as Chunk
    from fount.sampling.types import Samples as Samples

__all__ = ["Chunk", "Client", "EvaluationInfo", "PlanInfo", "RowBatch", "Samples", "__version__", "aio"]

_MODULES = {
    "Chunk": "fount.sampling.types",
    "Client": "fount.client.sync",
    "EvaluationInfo": "fount.evaluation.types",
    "PlanInfo": "fount.augmentation.plan",
    "RowBatch": "fount.augmentation.rows",
    "Samples": "fount.sampling.types",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("fount")
    if name == "aio":
        return import_module("fount.client.aio")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'fount' has no attribute {name!r}")
