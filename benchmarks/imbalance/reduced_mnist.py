"""MNIST with one reduced class: the same files with fewer training rows and unchanged test rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handlers.recipes.data.load import load_data

__all__ = ["KEPT_SHARE", "REDUCED_CLASS", "write_reduced_mnist"]

REDUCED_CLASS = 8
KEPT_SHARE = 0.01


def write_reduced_mnist(source: Path, folder: Path) -> int:
    """Write the four IDX files with only the first 1 % of class 8.

    Args:
        source: folder of the real files.
        folder: of the new files; created when absent.

    Returns:
        Number of training rows of the reduced class.

    Raises:
        DataError: the real files are missing or damaged.
    """
    data = load_data("mnist", source)
    folder.mkdir(parents=True, exist_ok=True)
    remaining = 0
    for split, prefix in ((data.train, "train"), (data.test, "t10k")):
        images = np.rint(split.images[:, 0].numpy() * 255).astype(np.uint8)  # (N, 1, H, W) -> (N, H, W)
        labels = split.labels.numpy().astype(np.uint8)
        if prefix == "train":
            of_class = np.flatnonzero(labels == REDUCED_CLASS)
            remaining = round(len(of_class) * KEPT_SHARE)
            kept = np.ones(len(labels), np.bool_)
            kept[of_class[remaining:]] = False
            images, labels = images[kept], labels[kept]
        _write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        _write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return remaining


def _write_idx(file: Path, values: NDArray[np.uint8]) -> None:
    """Write unsigned bytes: magic 0, 0, 8, dimensions; big-endian extents; the bytes."""
    header = bytes([0, 0, 8, values.ndim]) + np.asarray(values.shape, ">u4").tobytes()
    file.write_bytes(header + values.tobytes())
