"""Plans as data sets of the libraries that train on them: torch, Hugging Face `datasets`, Ray Data.

A plan or its ticket enters; a data set leaves whose rows are pulled from the gateway as they are read. Each library is
imported on first use, so only those in use need to be installed.

Example:
    >>> from fount.adapters import Pull
    >>> loader = DataLoader(Pull(plan), batch_size=64, num_workers=2)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fount.errors import MissingExtra

if TYPE_CHECKING:
    from fount.adapters.huggingface import iterable_dataset as iterable_dataset
    from fount.adapters.ray import PlanDatasource as PlanDatasource
    from fount.adapters.torch_dataset import Pull as Pull

__all__ = ["PlanDatasource", "Pull", "iterable_dataset"]

BATCH_FIELDS = {
    "label": "labels", "row": "rows", "group": "groups", "weight": "weights", "source": "sources",
    "source_row": "source_rows", "seed": "seeds", "index": "indices", "attempt": "attempts", "transforms": "transforms",
    "confidence": "confidences", "copy_ratio": "copy_ratios",
}  # fmt: skip
"""The columns of a row, other than its image, and the field of `RowBatch` each is read from."""

# name: (module, extra)
_MODULES = {
    "PlanDatasource": ("fount.adapters.ray", "ray"),
    "Pull": ("fount.adapters.torch_dataset", "torch"),
    "iterable_dataset": ("fount.adapters.huggingface", "huggingface"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fount.adapters' has no attribute {name!r}")
    module, extra = _MODULES[name]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fount":
            raise
        install = f"pip install 'fount[{extra}]'"
        message = f"fount.adapters.{name} needs the extra `{extra}`: {install} (missing: {error.name})"
        raise MissingExtra(message) from error
