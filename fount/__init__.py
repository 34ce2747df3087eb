"""Fount: samples from trained generators, each with an address of its own.

A client's request enters through `Client` (or `fount.client.aio.Client`); arrays with labels, seed and provenance
leave.
Names are imported on first use, so that a worker can read `fount.address` without loading a gRPC client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fount.augmentation.plan import PlanInfo as PlanInfo
    from fount.augmentation.rows import RowBatch as RowBatch
    from fount.client.sync import Client as Client
    from fount.evaluation.types import EvaluationInfo as EvaluationInfo
    from fount.sampling.types import Chunk as Chunk
    from fount.sampling.types import Samples as Samples

__all__ = ["Chunk", "Client", "EvaluationInfo", "PlanInfo", "RowBatch", "Samples", "__version__"]

_HOMES = {
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
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fount' has no attribute {name!r}")
