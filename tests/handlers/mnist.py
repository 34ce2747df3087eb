"""The real MNIST, for tests that are skipped where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handlers.recipes.data.load import MNIST_FILES

__all__ = ["DATA", "needs_mnist"]

DATA = Path(os.environ.get("FOUNT_DATA") or Path(__file__).resolve().parents[2] / "data")

_is_here = any(
    all((place / name).is_file() or (place / f"{name}.gz").is_file() for name in MNIST_FILES)
    for place in (DATA, DATA / "mnist")
)
needs_mnist = pytest.mark.skipif(not _is_here, reason=f"MNIST is not in {DATA}; name its folder with FOUNT_DATA")
