"""Data sets by name.

A recipe names its data, and `load_data` reads it. Nothing here draws random numbers: a data set is the same rows in the
same order on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from handlers.recipes.data.dataset import DataError, DataSet

__all__ = ["DATA_SETS", "load_data"]


def load_data(name: str, folder: Path | None = None) -> DataSet:
    """Read a data set.

    Args:
        name: key of `DATA_SETS`.
        folder: where the sets that are files lie; digits are inside scikit-learn and need none.

    Raises:
        DataError: the name is unknown, or files are missing or damaged.
    """
    if name not in DATA_SETS:
        raise DataError(f"data set {name!r} is unknown; name one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name](folder)


def _load_digits(_folder: Path | None) -> DataSet:
    from handlers.recipes.data.digits import load_split_digits

    return load_split_digits()


def _load_mnist(folder: Path | None) -> DataSet:
    from handlers.recipes.data.mnist import load_mnist

    return load_mnist(folder)


DATA_SETS: Mapping[str, Callable[[Path | None], DataSet]] = MappingProxyType(
    {"digits": _load_digits, "mnist": _load_mnist}
)
"""Loaders by name; each gets the data folder."""
